"""Windows of a log, read for lanes: the events of some partitions between two positions.

Guarantees: what is cut off, by number or by bytes, is known to be cut off, as the statement that cuts says where; and
an event that cannot be read (a date before Christ, text in no encoding, a damaged value) spoils no other one: those
before it are returned, then it is named.
"""

from __future__ import annotations

import functools
import itertools
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import asyncpg

from reactive_orch.errors import HandlerFailed, Superseded, Unreadable, named
from reactive_orch.model import Event, Filter, LogName, Position, Window
from reactive_orch.postgres.faults import of_a_value, translated
from reactive_orch.postgres.statements import load_statements

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from reactive_orch.postgres.connection import AnyConnection

WINDOW_BYTES_MAX = 8 * 1024 * 1024
"""A window ends with the event that reaches this size, so that large events cannot fill the memory; one event is always
read."""

READ_TIMEOUT_S = 10.0
"""For each statement here. A connection that is silent for so long is given up; only handlers may take longer on it."""

LOOKED_AT = 10_000
"""Events at either end of a log by which is told whether any passes a filter. That takes some 10 ms."""

_SQL = load_statements(Path(__file__).with_suffix(".sql"))

_COLUMNS = [name.removesuffix("_json") for name in Event._fields]

_bytes = itemgetter(len(_COLUMNS))
_of_event = itemgetter(slice(len(_COLUMNS)))
_event: Callable[[Iterable[Any]], Event] = functools.partial(tuple.__new__, Event)
"""What Event._make does, without a Python frame for each row; the statements name the columns in the order of Event."""


class Found(NamedTuple):
    """What a window holds, up to `end`."""

    events: Sequence[Event]
    end: Position
    size: int
    """What the events' columns that may be long hold, in bytes as they are sent."""


async def read_window(connection: AnyConnection, log: LogName, window: Window, wanted: Filter) -> Found:
    """Return the events of a log's window in order, and the position up to which the window has been read.

    Raises Unreadable when its first event cannot be read. If a later one cannot, the window ends somewhere before it.
    """
    limit = window.limit
    while True:
        try:
            return await _read(connection, log, window, wanted, limit)
        except Exception as error:
            reason = of_a_value(error)
            if reason is None:
                raise
            if limit == 1:
                raise await _unreadable(connection, log, window, wanted, reason) from reason
            limit //= 2


async def read_at(connection: AnyConnection, log: LogName, positions: Sequence[Position]) -> Sequence[Event]:
    """Return the events of a log at these positions, in order, as many of the first as fit into a window.

    Raises HandlerFailed when one of them cannot be read; if it is the only one, and the server has sent it, its column
    is named.
    """
    try:
        with translated():
            rows = await connection.fetch(_SQL.read_large, log, positions, WINDOW_BYTES_MAX, timeout=READ_TIMEOUT_S)
    except Exception as error:
        reason = of_a_value(error)
        if reason is None:
            raise
        told = len(positions) == 1 and not isinstance(reason, asyncpg.PostgresError)  # which ends the transaction
        column = await _spoiled_column(connection, log, positions[0]) if told else None
        msg = f"{f'its {column}' if column else 'an event'} cannot be read ({named(reason)})"
        raise HandlerFailed(msg) from reason
    return tuple(map(_event, map(_of_event, rows)))


async def next_position(connection: AnyConnection, log: LogName, after: Position, settled: Position) -> Position | None:
    """Return where a log's first event after a position is, of whatever partition; None when none is settled yet."""
    with translated():
        position = await connection.fetchval(_SQL.next_position, log, after, settled)
    return None if position is None else int(position)


async def any_passes(connection: AnyConnection, log: LogName, wanted: Filter) -> bool:
    """Tell whether an event passes a filter, of the first and the last `LOOKED_AT` of a log.

    True if there are none, and if one of them cannot be read: that is told when it is handled.
    """
    try:
        with translated():
            found: bool | None = await connection.fetchval(_SQL.any_passes, log, *_filters(wanted), LOOKED_AT)
    except Exception as error:
        if of_a_value(error) is None:
            raise
        return True
    return found is not False


async def _read(connection: AnyConnection, log: LogName, window: Window, wanted: Filter, limit: int) -> Found:
    statement = _SQL.read_scattered if window.scattered else _SQL.read_dense
    with translated():
        values = (*_of(log, window, wanted), limit, WINDOW_BYTES_MAX // limit)
        rows = await connection.fetch(statement, *values, timeout=READ_TIMEOUT_S)
    found = await _with_large(connection, log, rows) if None in map(_bytes, rows) else rows
    events = tuple(map(_event, map(_of_event, found)))
    cut = len(events) == limit or len(events) < len(rows)
    return Found(events, events[-1].global_position if cut else window.high, sum(map(_bytes, found)))


async def _with_large(connection: AnyConnection, log: LogName, rows: Sequence[asyncpg.Record]) -> list[asyncpg.Record]:
    """Return the rows with the large events among them, up to the event that fills the window."""
    positions = [row["global_position"] for row in rows if row["bytes"] is None]
    with translated():
        large = await connection.fetch(_SQL.read_large, log, positions, WINDOW_BYTES_MAX, timeout=READ_TIMEOUT_S)
    at = {row["global_position"]: row for row in large}
    whole = [row if row["bytes"] is not None else at.get(row["global_position"]) for row in rows]
    read = [0, *itertools.accumulate(row["bytes"] if row else WINDOW_BYTES_MAX for row in whole)]
    found = [row for row, before in zip(whole, read, strict=False) if row and before < WINDOW_BYTES_MAX]
    if not found:
        msg = "a large event that was to be read is gone"
        raise Superseded(msg)
    return found


def _of(log: LogName, window: Window, wanted: Filter) -> tuple[Any, ...]:
    return (log, window.partitions, window.low, window.high, *_filters(wanted))


def _filters(wanted: Filter) -> tuple[Sequence[str] | None, ...]:
    return wanted.aggregate_types, wanted.bounded_contexts, wanted.event_types


async def _unreadable(
    connection: AnyConnection, log: LogName, window: Window, wanted: Filter, error: Exception
) -> Unreadable:
    """Return what is wrong with the window's first event. Raises Superseded when there is none any more."""
    with translated():
        first = await connection.fetchrow(_SQL.find_first, *_of(log, window, wanted), timeout=READ_TIMEOUT_S)
    if first is None:
        msg = "an event that could not be read is gone"
        raise Superseded(msg)
    column = await _spoiled_column(connection, log, first["global_position"])
    return Unreadable(f"its {column or 'columns together'} cannot be read ({named(error)})", *first)


async def _spoiled_column(connection: AnyConnection, log: LogName, position: Position) -> str | None:
    for column in _COLUMNS:
        try:
            with translated():
                await connection.fetch(_SQL.read_column, log, position, column, timeout=READ_TIMEOUT_S)
        except Exception as error:
            if of_a_value(error) is None:
                raise
            return column  # whatever the error is: it comes with this column
    return None
