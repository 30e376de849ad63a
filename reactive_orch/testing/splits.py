"""Whether a handler's outcome depends on where batches end: that is never the same twice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from itertools import pairwise, product
from typing import TYPE_CHECKING, Any, TypeAlias

from reactive_orch.postgres import testing
from reactive_orch.testing.handlers import attempt, demand_projection, demand_transaction, wanted_of
from reactive_orch.testing.logged import as_logged
from reactive_orch.testing.raising import users_own

if TYPE_CHECKING:
    from reactive_orch.model import Event, NewEvent, Projection
    from reactive_orch.postgres.connection import AnyConnection

ALL_SPLITS_MOST = 6
"""Events that are split in all ways, of which there are 32; of more, each place alone, and then one by one."""
SHOWN_MOST = 5

Outcome: TypeAlias = Callable[[Any], Awaitable[Any]]


async def each_split(
    projection: Projection,
    events: Iterable[Event | NewEvent],
    tx: AnyConnection,
    outcome: str | Outcome | None = None,
) -> None:
    """Let a projection handle these events in one batch, then split into batches at every place, and compare.

    Up to 6 events are split in all ways; more at each place alone, then one by one. Each time all is taken back: `tx`,
    a connection inside a transaction, sees nothing of it. What is compared is what `outcome` returns, a query or an
    async function of the connection; without it the rows of all tables but the package's own, as JSON, without columns
    that a sequence fills.

    Raises AssertionError with the split and the rows that differ; what the handler raises, with a note of the split;
    ValueError when there are no tables, or less than two events to split; TypeError as `call`.
    """
    __tracebackhide__ = True
    demand_projection(projection, "each_split")
    demand_transaction(tx, "each_split")
    wanted = wanted_of(projection, as_logged(events))
    if len(wanted) < 2:  # noqa: PLR2004 - a place to split has an event on both sides
        msg = f"each_split needs two events or more that pass the filter of {projection.name!r}, not {len(wanted)}"
        raise ValueError(msg)
    whole, *splits = _splits(wanted)
    expected = await _outcome(projection, whole, tx, outcome)
    for split in splits:
        found = await _outcome(projection, split, tx, outcome)
        if found != expected:
            raise AssertionError(_told(projection, split, expected, found))


def _splits(events: Sequence[Event]) -> Iterator[list[Sequence[Event]]]:
    """Yield the ways to split events into batches, first that of one batch."""
    places = range(1, len(events))
    if len(events) <= ALL_SPLITS_MOST:
        for ends in product([False, True], repeat=len(places)):
            yield _cut(events, [place for place, is_end in zip(places, ends, strict=True) if is_end])
    else:
        yield _cut(events, [])
        for place in places:
            yield _cut(events, [place])
        yield _cut(events, places)


def _cut(events: Sequence[Event], places: Sequence[int]) -> list[Sequence[Event]]:
    return [events[first:last] for first, last in pairwise([0, *places, len(events)])]


async def _outcome(
    projection: Projection, split: Sequence[Sequence[Event]], tx: AnyConnection, outcome: str | Outcome | None
) -> Any:
    """Return the outcome of one split, which is taken back."""
    __tracebackhide__ = True
    tried = tx.transaction()
    await tried.start()
    try:
        for batch in split:
            failure = await attempt(projection, batch, tx)
            if failure is not None:
                error = users_own(failure)
                error.add_note(f"in {_named(split)}")
                raise error
        return await _read(tx, outcome)
    finally:
        if tx.is_in_transaction():  # a handler may have ended it, which is the failure then
            await tried.rollback()


async def _read(tx: AnyConnection, outcome: str | Outcome | None) -> Any:
    if outcome is None:
        return [tuple(row) for row in await testing.all_rows(tx)]
    if isinstance(outcome, str):
        return [tuple(row) for row in await tx.fetch(outcome)]
    return await outcome(tx)


def _named(split: Sequence[Sequence[Event]]) -> str:
    sizes = [len(batch) for batch in split]
    return f"one batch of {sizes[0]}" if len(sizes) == 1 else f"batches of {' + '.join(map(str, sizes))}"


def _told(projection: Projection, split: Sequence[Sequence[Event]], expected: Any, found: Any) -> str:
    whole = f"one batch of {sum(map(len, split))}"
    begins = f"the outcome of {projection.name!r} depends on where batches end: {_named(split)} and {whole} differ"
    if not (isinstance(expected, list) and isinstance(found, list)):
        return f"{begins}\n  {whole}: {expected!r}\n  {_named(split)}: {found!r}"
    lost, more = (Counter(map(repr, rows)) for rows in (expected, found))
    return "\n".join(
        [begins, *_only(f"only in {whole}", lost - more), *_only(f"only in {_named(split)}", more - lost)]
        if lost != more
        else [begins, "  the same rows in another order: let the query sort them"]
    )


def _only(where: str, rows: Counter[str]) -> Iterator[str]:
    found = list(rows.elements())
    yield from (f"  {where}: {row}" for row in found[:SHOWN_MOST])
    if len(found) > SHOWN_MOST:
        yield f"  {where}: {len(found) - SHOWN_MOST} more"
