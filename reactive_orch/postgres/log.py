"""The event logs: observe their heads; read the streams of the own one.

Decides nothing about how far the log may be read: `core.frontier` does.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from reactive_orch.model import OWN_LOG, Event, Holder, LogName, Partition, Position
from reactive_orch.postgres.faults import of_a_value, translated
from reactive_orch.postgres.statements import load_statements

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

    from reactive_orch.postgres.connection import AnyConnection

FRESH_MOST, FRESH_BYTES = 100, 16_384
"""A look brings the events of at most so many positions along, none that is larger."""

RUN_ROWS_MAX = 1000
"""How far one look follows the run without gaps while writers hold the frontier."""

_SQL = load_statements(Path(__file__).with_suffix(".sql"))

_BYTES = len(Event._fields)
"""The column after those of an event."""

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
    fresh: Sequence[Event] | None = None
    """What those who wait have up to the head, if that is settled; None if they are to read it themselves."""


async def observe(
    connection: AnyConnection, log: LogName, settled: Position, partitions: Collection[Partition] = ()
) -> Look:
    """Look at a log: steps one and two of the frontier, behind the position up to which it is known to be settled.

    With partitions step three for them; their events are left out where they are not settled yet, too many or too
    large, or cannot be read.
    """
    if partitions:
        try:
            return await _look(connection, log, settled, partitions)
        except Exception as error:
            if of_a_value(error) is None:
                raise
    with translated():
        row = await connection.fetchrow(_SQL.observe, log, settled)
    assert row is not None, "observe_log_from returns one row"
    return Look(*row)


async def _look(connection: AnyConnection, log: LogName, settled: Position, partitions: Collection[Partition]) -> Look:
    with translated():
        rows = await connection.fetch(_SQL.look, log, settled, FRESH_MOST, sorted(partitions), FRESH_BYTES)
    look = Look(*rows[0][_BYTES + 2 :])
    found = [row for row in rows if row[0] is not None]
    if not rows[0]["brought"] or any(row["bytes"] is None for row in found):
        return look
    return look._replace(fresh=[_event(row[:_BYTES]) for row in found])


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
