"""The event logs: observe their heads; append to the own one, read its streams.

Guarantees: an append is checked against the version it expects and fails as Conflict, leaving the caller's transaction
to the caller. Decides nothing about how far the log may be read: `core.frontier` does.
"""

from __future__ import annotations

import contextlib
import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import asyncpg

from reactive_orch.errors import Conflict
from reactive_orch.json_text import text_of
from reactive_orch.model import OWN_LOG, Event, Expected, Holder, LogName, NewEvent, Position
from reactive_orch.postgres.faults import translated
from reactive_orch.postgres.statements import load_statements

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from reactive_orch.postgres.connection import AnyConnection

RUN_ROWS_MAX = 1000
"""How far one look follows the run without gaps while writers hold the frontier."""

TURNS_MAX = 1000
"""An append takes a lock for each of its aggregates, if they are no more than this: a server has room for some 6,000
locks by default, for everybody. Appends to more take turns by one lock of their own; if somebody else appends to one of
their aggregates meanwhile, one of the two is in conflict."""

Stream: TypeAlias = tuple[str, str, str]
"""Bounded context, type and id of an aggregate."""

_MANY_STREAMS: Stream = ("", "", "")

NAMED_MAX = 5

PAYLOAD_BYTES_MAX = 1_000_000_000
"""PostgreSQL has room for 1 GiB in a row, and as much in a message: what is larger could not be read either."""
AT_ONCE_EVENTS, AT_ONCE_BYTES = 50_000, 1 << 26
"""One statement of an append writes no more, and needs the memory for no more, on either side; but for one event that
is larger."""
_PAYLOAD = 6

Columns: TypeAlias = "tuple[Sequence[Any], ...]"

_SQL = load_statements(Path(__file__).with_suffix(".sql"))

_event: Callable[[Iterable[Any]], Event] = functools.partial(tuple.__new__, Event)
"""What Event._make does, without a Python frame for each row; the statements name the columns in the order of Event."""


class Look(NamedTuple):
    """The head, read first, then who may still write at or below it, and which of those are prepared transactions."""

    head: Position
    holders: list[str]
    prepared: list[str]
    disarmed: bool
    """Somebody has disarmed the bell: nobody rings."""
    queue: int
    """How many writers wait for another's bell to have rung."""
    flaw: str | None = None
    """The rule of the log that is broken, looked up last: then nothing that was seen may be used."""


async def observe(connection: AnyConnection, log: LogName) -> Look:
    """Look at a log: steps one and two of the frontier."""
    with translated():
        row = await connection.fetchrow(_SQL.observe, log)
    assert row is not None, "observe_log returns one row"
    return Look(*row)


async def arm(connection: AnyConnection, log: LogName, for_s: float) -> str | None:
    """Let a log's writers ring for this many seconds; 0: no more. Return why nobody will ring, None if they will."""
    with translated():
        silence: str | None = await connection.fetchval(_SQL.arm, log, int(for_s * 1000))
    return silence


async def run_end(connection: AnyConnection, log: LogName, settled: Position, head: Position) -> Position:
    """Return the end of a log's run without gaps directly after `settled`; `settled` itself when there is none."""
    with translated():
        end = await connection.fetchval(_SQL.run_end, log, settled, head, RUN_ROWS_MAX)
    return settled if end is None else int(end)


async def holders(connection: AnyConnection, log: LogName) -> list[Holder]:
    """Return who holds a log's frontier, the oldest transaction first."""
    with translated():
        rows = await connection.fetch(_SQL.holders, log)
    return [Holder(**{**row, "age_s": row["age_s"] or 0.0}) for row in rows]


async def read_stream(
    connection: AnyConnection, aggregate_type: str, aggregate_id: str, *, context: str = "default", after: int = 0
) -> list[Event]:
    """Return the events of one aggregate of the log `events` with versions greater than `after`, in order.

    `connection` is any of asyncpg's, and what it raises passes as it is. `context` is the bounded context.
    """
    rows = await connection.fetch(_SQL.read_stream, OWN_LOG, context, aggregate_type, aggregate_id, after)
    return list(map(_event, rows))


async def append_columns(connection: AnyConnection, columns: Columns, expected: int | Expected) -> None:
    """Write events, in the form of `columns_of`, inside the caller's transaction, numbered after its last.

    An exact version (0 for no stream) is that of the one aggregate all events must belong to. Raises Conflict when the
    stream has another version, ValueError when an exact version is given for several aggregates.
    """
    if streams := streams_of(columns):
        await take_turns(connection, streams)
        base, done = await base_of(connection, streams, expected), 0
        for part in _parts(columns):
            await write(connection, part, None if base is None else base + done)
            done += len(part[0])


def _parts(columns: Columns) -> Iterator[Columns]:
    """Yield the events, a statement's share at a time."""
    first = size = 0
    for at, payload in enumerate(columns[_PAYLOAD]):
        size += len(payload)
        if at - first == AT_ONCE_EVENTS or (size > AT_ONCE_BYTES and at > first):
            yield tuple(column[first:at] for column in columns)
            first, size = at, len(payload)
    yield columns if first == 0 else tuple(column[first:] for column in columns)


def streams_of(columns: Columns) -> list[Stream]:
    """Return the aggregates of events, in order."""
    return sorted(set(zip(*columns[:3], strict=True)))


async def take_turns(connection: AnyConnection, streams: Sequence[Stream]) -> None:
    """Wait until nobody else is appending to these aggregates; nobody will before the transaction ends."""
    turns = streams if len(streams) <= TURNS_MAX else [_MANY_STREAMS]
    await connection.execute(_SQL.lock_stream, *(list(column) for column in zip(*turns, strict=True)))


def expected_base(expected: int | Expected) -> int | None:
    """Return the version after which to number, unchecked; None: after each aggregate's last."""
    if expected is Expected.ANY:
        return None
    return 0 if expected is Expected.NO_STREAM else expected


async def base_of(connection: AnyConnection, streams: Sequence[Stream], expected: int | Expected) -> int | None:
    """Return the version after which to number, checked; None: after each aggregate's last.

    Raises Conflict and ValueError as `append_columns` does.
    """
    base = expected_base(expected)
    if base is None:
        return None
    if len(streams) > 1:
        found = len(streams) if len(streams) <= TURNS_MAX else f"more than {TURNS_MAX}"
        msg = f"an exact version is that of one aggregate, but the events belong to {found}"
        raise ValueError(msg)
    version = await connection.fetchval(_SQL.stream_version, *streams[0])
    if version != base:
        msg = f"{names(streams)} is at version {version}, not at {base}"
        raise Conflict(msg)
    return base


async def write(connection: AnyConnection, columns: Sequence[Sequence[Any]], base: int | None) -> None:
    """Write events whose turn it is, numbered after `base`. Raises Conflict."""
    with in_conflict(lambda: streams_of(tuple(columns))):
        await connection.execute(_SQL.append, *columns, base)


@contextlib.contextmanager
def in_conflict(streams: Callable[[], Sequence[Stream]]) -> Iterator[None]:
    """Raise Conflict, naming some of these aggregates, for what the log has already."""
    try:
        yield
    except asyncpg.UniqueViolationError as error:
        msg = f"another writer appended to {names(streams())} at the same time, or an event_id is already taken"
        raise Conflict(msg) from error


def names(streams: Sequence[Stream]) -> str:
    """Return the names of some of these aggregates, and how many more there are."""
    more = [f"{len(streams) - NAMED_MAX} more"] if len(streams) > NAMED_MAX else []
    return ", ".join(["/".join(stream) for stream in streams[:NAMED_MAX]] + more)


def columns_of(events: Sequence[NewEvent]) -> Columns:
    """Return the events column by column, as the statement takes them.

    Raises ValueError or TypeError for what JSON cannot carry, ValueError for a payload that is too large.
    """
    rows = [
        (
            e.bounded_context,
            e.aggregate_type,
            e.aggregate_id,
            e.event_id,
            e.event_type,
            e.event_version,
            e.payload_bytes(),
            e.trace_id,
            e.correlation_id,
            e.causation_id,
            text_of(e.metadata),
            e.partition_key,
        )
        for e in events
    ]
    columns: Columns = tuple(list(column) for column in zip(*rows, strict=True)) or ((),) * 12
    if (largest := max(map(len, columns[_PAYLOAD]), default=0)) > PAYLOAD_BYTES_MAX:
        msg = f"a payload has {largest:,} bytes, but an event holds no more than {PAYLOAD_BYTES_MAX:,}"
        raise ValueError(msg)
    return columns
