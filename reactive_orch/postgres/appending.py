"""Appending to the log `events`, in steps that any toolkit can perform.

Guarantees: an append is checked against the version it expects and fails as Conflict, leaving the caller's transaction
to the caller.
"""

from __future__ import annotations

import contextlib
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from reactive_orch import errors
from reactive_orch.errors import ConfigError, Conflict
from reactive_orch.json_text import text_of
from reactive_orch.model import Expected, NewEvent, Position
from reactive_orch.postgres.statements import load_statements
from reactive_orch.postgres.steps import Rows, Statement, perform

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from reactive_orch.postgres.connection import AnyConnection
    from reactive_orch.postgres.steps import Steps

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

UNIQUE_VIOLATION = "23505"
_NO_SCHEMA = ("3F000", "42P01")
"""SQLSTATE: no schema, or no table, of this name."""

Columns: TypeAlias = "tuple[Sequence[Any], ...]"

_SQL = load_statements(Path(__file__).with_suffix(".sql"))


def append_steps(columns: Columns, expected: int | Expected) -> Steps[list[Position]]:
    """Write events, in the form of `columns_of`, inside the caller's transaction, numbered after its last.

    Returns their positions, in the same order. An exact version (0 for no stream) is that of the one aggregate all
    events must belong to. Raises Conflict when the stream has another version, ValueError when an exact version is
    given for several aggregates, ConfigError where there is no log.
    """
    positions: list[Position] = []
    if streams := streams_of(columns):
        yield turn(streams)
        base = yield from base_steps(streams, expected)
        for part in _parts(columns):
            positions += yield from write_steps(part, None if base is None else base + len(positions))
    return positions


async def append_columns(connection: AnyConnection, columns: Columns, expected: int | Expected) -> None:
    """Do the same on a connection of asyncpg's."""
    await perform(append_steps(columns, expected), asker(connection))


def asker(connection: AnyConnection) -> Callable[[Statement], Any]:
    """Return what sends statements on a connection of asyncpg's."""

    async def ask(statement: Statement) -> Rows:
        return await connection.fetch(statement.sql, *statement.arguments)

    return ask


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


def turn(streams: Sequence[Stream]) -> Statement:
    """Return what waits until nobody else is appending to these aggregates; nobody will before the transaction ends."""
    turns = streams if len(streams) <= TURNS_MAX else [_MANY_STREAMS]
    return Statement(_SQL.lock_stream, tuple(list(column) for column in zip(*turns, strict=True)))


def expected_base(expected: int | Expected) -> int | None:
    """Return the version after which to number, unchecked; None: after each aggregate's last."""
    if expected is Expected.ANY:
        return None
    return 0 if expected is Expected.NO_STREAM else expected


def base_steps(streams: Sequence[Stream], expected: int | Expected) -> Steps[int | None]:
    """Return the version after which to number, checked; None: after each aggregate's last.

    Raises Conflict and ValueError as `append_steps` does.
    """
    base = expected_base(expected)
    if base is None:
        return None
    if len(streams) > 1:
        found = len(streams) if len(streams) <= TURNS_MAX else f"more than {TURNS_MAX}"
        msg = f"an exact version is that of one aggregate, but the events belong to {found}"
        raise ValueError(msg)
    ((version,),) = yield Statement(_SQL.stream_version, streams[0])
    if version != base:
        msg = f"{names(streams)} is at version {version}, not at {base}"
        raise Conflict(msg)
    return base


def write_steps(columns: Columns, base: int | None) -> Steps[list[Position]]:
    """Write events whose turn it is, numbered after `base`; return their positions. Raises Conflict."""
    with in_conflict(lambda: streams_of(columns)):
        rows = yield Statement(_SQL.append, (*columns, base))
    return sorted(chain.from_iterable(rows))


@contextlib.contextmanager
def in_conflict(streams: Callable[[], Sequence[Stream]]) -> Iterator[None]:
    """Raise Conflict, naming some of these aggregates, for what the log has already."""
    try:
        yield
    except Exception as error:
        if sqlstate_of(error) != UNIQUE_VIOLATION:
            raise
        msg = f"another writer appended to {names(streams())} at the same time, or an event_id is already taken"
        raise Conflict(msg) from error


def sqlstate_of(error: BaseException) -> str | None:
    """Return the SQLSTATE of an error, whichever toolkit has raised it; None without one."""
    return errors.sqlstate_of(error) or errors.sqlstate_of(getattr(error, "orig", error))


@contextlib.contextmanager
def with_log() -> Iterator[None]:
    """Raise ConfigError where a connection leads to a database without a log."""
    try:
        yield
    except Exception as error:
        if sqlstate_of(error) not in _NO_SCHEMA:
            raise
        msg = "there is no log in the database of this connection: run `python -m reactive_orch migrate` on it"
        raise ConfigError(msg) from error


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
