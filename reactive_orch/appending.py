"""Appending from an application or from a handler."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from reactive_orch.model import Expected, NewEvent
from reactive_orch.model.reports import Appended
from reactive_orch.postgres import log
from reactive_orch.postgres.connection import is_pool
from reactive_orch.postgres.put_off import put_off
from reactive_orch.telemetry.observers import default_observers, telling
from reactive_orch.telemetry.spans.tracer import current_traceparent

if TYPE_CHECKING:
    from collections.abc import Sequence

    from reactive_orch.postgres.connection import AnyConnection


_emit = telling(default_observers())
"""The observers of a process, not of a node: whoever appends need not have one."""


async def append(
    connection: AnyConnection, events: Sequence[NewEvent], expected: int | Expected = Expected.ANY
) -> None:
    """Append events in order, inside the caller's transaction if it has opened one.

    Each is numbered after the last of its aggregate. `expected`: `Expected.ANY`, `Expected.NO_STREAM`, or the exact
    version of the one aggregate that all events belong to. The caller's traceparent goes into the metadata.

    With the transaction a handler was given, the events are kept until the end of its batch: written at once they
    would hold back every reader of the log until the batch ends. They are committed with it, or not at all; a
    conflict then is an error of the batch.

    Appends to the same aggregate wait for each other. But an append to more than 1000 aggregates and a smaller one do
    not: either may raise Conflict.

    Raises Conflict when the stream has another version, or an event_id is taken. Raises ValueError when anything but
    `ANY` is given for several aggregates, when a type or the partition key of an event is empty, and for a payload of
    more than 1,000,000,000 bytes; ValueError or TypeError for what JSON cannot carry; TypeError for a pool instead of a
    connection, and for another `expected`. A Conflict may leave the caller's transaction unusable, as any failed
    statement does.
    """
    _demand_types(connection, expected)
    if not all(e.aggregate_type and e.event_type and e.partition_key != "" for e in events):
        msg = "aggregate_type, event_type and partition_key of an event must not be empty"
        raise ValueError(msg)
    traceparent = current_traceparent()
    if traceparent is not None:
        events = [replace(e, metadata={"traceparent": traceparent, **e.metadata}) for e in events]
    columns = log.columns_of(events)
    if not await put_off(connection, columns, expected):
        await _write(connection, columns, expected)
    _emit(Appended(len(events)))


def _demand_types(connection: object, expected: object) -> None:
    """Raise TypeError for what would fail later, in words that are not ours, or succeed as something else."""
    if is_pool(connection):
        msg = "append takes a connection, not a pool: async with pool.acquire() as connection: …"
        raise TypeError(msg)
    if not isinstance(expected, int | Expected) or isinstance(expected, bool):
        msg = f"expected is Expected.ANY, Expected.NO_STREAM or a version, not {expected!r}"
        raise TypeError(msg)


async def _write(connection: AnyConnection, columns: log.Columns, expected: int | Expected) -> None:
    if connection.is_in_transaction():
        await log.append_columns(connection, columns, expected)
    else:
        async with connection.transaction():
            await log.append_columns(connection, columns, expected)
