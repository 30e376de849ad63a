"""A handler alone: called as a lane calls it, in a transaction that is the test's own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reactive_orch.errors import HandlerFailed
from reactive_orch.model import Event, NewEvent, Projection, subject
from reactive_orch.model.events import replay_of
from reactive_orch.model.reports import Subject
from reactive_orch.postgres.testing import savepoint
from reactive_orch.runtime.handling.calling import Calling
from reactive_orch.testing.logged import as_logged
from reactive_orch.testing.raising import users_own

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from reactive_orch.model import Filter
    from reactive_orch.postgres.connection import AnyConnection

REPLICA_SET = "test"
"""What the subject of a handler alone names."""

TIMEOUT_S = 10.0
"""How long a call may take of a handler that does not say so itself: a test that waits for itself is to end."""


async def call(
    projection: Projection, events: Iterable[Event | NewEvent], tx: AnyConnection, *, replayed: bool = False
) -> int:
    """Let a projection handle these events as one batch; return how many its handler got.

    As in a batch, its middleware is around it, and it gets those that pass its filter; with `replayed` as replayed
    ones, which it gets none of if it was made with `replay=False`. `tx` is a connection inside a transaction,
    `orch.transaction()` for instance, which goes on in any case: when the handler fails, only what it has written is
    taken back, and what it raised is raised.

    Raises TypeError for what is no projection, no event or no connection inside a transaction; HandlerFailed when the
    handler raised nothing and did wrong: it ended the transaction, or swallowed an error of the database.
    """
    __tracebackhide__ = True
    demand_projection(projection, "call")
    demand_transaction(tx, "call")
    wanted = wanted_of(projection, as_logged(events), replayed=replayed)
    failure = await attempt(projection, wanted, tx)
    if failure is not None:
        raise users_own(failure)
    return len(wanted)


async def attempt(projection: Projection, events: Sequence[Event], tx: AnyConnection) -> HandlerFailed | None:
    """Let a handler have these events in a savepoint; return how it failed, None if it did not."""
    timeout_s = TIMEOUT_S if projection.timeout is None else projection.timeout
    calling = Calling(projection, timeout_s, own=projection.around)
    handled = subject.set(Subject(REPLICA_SET, *projection.subscription))
    try:
        async with savepoint(tx):
            while events:
                events = events[await calling(events, tx) :]
    except HandlerFailed as failure:
        return failure
    finally:
        subject.reset(handled)
    return None


def wanted_of(projection: Projection, events: Sequence[Event], *, replayed: bool = False) -> list[Event]:
    """Return the events that the projection's handler gets of these."""
    if not replayed:
        return [event for event in events if _passes(projection.filter, event)]
    return [replay_of(event) for event in events if projection.replay and _passes(projection.filter, event)]


def _passes(wanted: Filter, event: Event) -> bool:
    """Tell what `passes` in the schema tells."""
    told = (
        (wanted.aggregate_types, event.aggregate_type),
        (wanted.bounded_contexts, event.bounded_context),
        (wanted.event_types, event.event_type),
    )
    return all(names is None or name in names for names, name in told)


def demand_projection(projection: object, taker: str) -> None:
    """Raise TypeError for what is no projection."""
    if not isinstance(projection, Projection):
        what = getattr(projection, "__qualname__", None) or type(projection).__name__
        msg = f"{taker} takes a projection, and {what} is none: write @projection(…) above the handler"
        raise TypeError(msg)


def demand_transaction(tx: object, taker: str) -> None:
    """Raise TypeError for what is no connection inside a transaction."""
    is_in_transaction = getattr(tx, "is_in_transaction", None)
    if is_in_transaction is None or not is_in_transaction():
        what = f"a {type(tx).__name__}" if is_in_transaction is None else "a connection outside of one"
        msg = f"{taker} takes a connection inside a transaction (async with orch.transaction() as tx), not {what}"
        raise TypeError(msg)
