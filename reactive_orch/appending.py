"""Appending from an application or from a handler, on whatever connection it has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast, overload

from reactive_orch.model import Expected, NewEvent
from reactive_orch.model.reports import Appended
from reactive_orch.postgres.appending import append_steps, columns_of, with_log
from reactive_orch.postgres.blocking import BlockingConnection
from reactive_orch.postgres.put_off import put_off
from reactive_orch.postgres.steps import perform, perform_now
from reactive_orch.postgres.toolkits import SyncToolkit, toolkit_of
from reactive_orch.telemetry.observers import default_observers, telling
from reactive_orch.telemetry.spans.tracer import current_traceparent

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from reactive_orch.model import Position
    from reactive_orch.postgres.appending import Columns
    from reactive_orch.postgres.connection import AnyConnection
    from reactive_orch.postgres.toolkits import AsyncToolkit, AsyncTransactional, Transactional


_emit = telling(default_observers())
"""The observers of a process, not of a node: whoever appends need not have one."""


@overload
def append(
    connection: AnyConnection | AsyncTransactional, events: Sequence[NewEvent], expected: int | Expected = ...
) -> Coroutine[Any, Any, list[Position]]: ...


@overload
def append(
    connection: Transactional | BlockingConnection, events: Sequence[NewEvent], expected: int | Expected = ...
) -> list[Position]: ...


def append(
    connection: AnyConnection | AsyncTransactional | Transactional | BlockingConnection,
    events: Sequence[NewEvent],
    expected: int | Expected = Expected.ANY,
) -> Coroutine[Any, Any, list[Position]] | list[Position]:
    """Append events in order, inside the caller's transaction; return their positions in the log, in the same order.

    `connection` is one of asyncpg's, or one of psycopg 3 or SQLAlchemy (a session, too), whose calls are awaited, and
    then this one is, or are not: `await append(connection, …)`, or `append(connection, …)`. Where the toolkit would
    commit each statement by itself, as asyncpg does and psycopg with `autocommit`, there is a transaction of its own.
    Else the caller commits, as after any statement of his.

    Each event is numbered after the last of its aggregate. `expected`: `Expected.ANY`, `Expected.NO_STREAM`, or the
    exact version of the one aggregate that all events belong to. The caller's traceparent goes into the metadata.

    With the transaction a handler was given, the events are kept until the end of its batch: written at once they
    would hold back every reader of the log until the batch ends. They are committed with it, or not at all; a
    conflict then is an error of the batch. They have no positions yet: the list is empty.

    Appends to the same aggregate wait for each other. But an append to more than 1000 aggregates and a smaller one do
    not: either may raise Conflict.

    Raises Conflict when the stream has another version, or an event_id is taken; ConfigError where there is no log.
    Raises ValueError when anything but `ANY` is given for several aggregates, when a type or the partition key of an
    event is empty, for a payload of more than 1,000,000,000 bytes, for a connection that is closed, and for one of
    SQLAlchemy's that is in no transaction (AUTOCOMMIT); ValueError or TypeError for what JSON cannot carry; TypeError
    for what is no connection, for events that are no `NewEvent`s, and for another `expected`. What else the toolkit
    raises passes as it is. A Conflict may leave the caller's transaction unusable, as any failed statement does.
    """
    _demand_types(events, expected)
    if isinstance(connection, BlockingConnection):
        return connection.run(append, events, expected)
    toolkit = toolkit_of(connection)
    columns = columns_of(_traced(events))
    if isinstance(toolkit, SyncToolkit):
        return _append_now(toolkit, columns, expected)
    return _append(toolkit, columns, expected)


async def _append(toolkit: AsyncToolkit, columns: Columns, expected: int | Expected) -> list[Position]:
    batch = await toolkit.in_asyncpg()
    positions: list[Position] = []
    if batch is None or not await put_off(batch, columns, expected, toolkit.ask):
        with with_log():
            async with toolkit.transaction():
                positions = await perform(append_steps(columns, expected), toolkit.ask)
    _emit(Appended(len(columns[0])))
    return positions


def _append_now(toolkit: SyncToolkit, columns: Columns, expected: int | Expected) -> list[Position]:
    with toolkit.transaction(), with_log():  # in this order: Django has errors of its own outside
        positions = perform_now(append_steps(columns, expected), toolkit.ask)
    _emit(Appended(len(positions)))
    return positions


def _traced(events: Sequence[NewEvent]) -> Sequence[NewEvent]:
    """Return the events with the traceparent of the caller in their metadata, unless they have one."""
    traceparent = current_traceparent()
    if traceparent is None:
        return events
    return [replace(each, metadata={"traceparent": traceparent, **each.metadata}) for each in events]


def _demand_types(events: object, expected: object) -> None:
    """Raise TypeError for what would fail later, in words that are not ours, or succeed as something else."""
    if not isinstance(expected, int | Expected) or isinstance(expected, bool):
        msg = f"expected is Expected.ANY, Expected.NO_STREAM or a version, not {expected!r}"
        raise TypeError(msg)
    if not isinstance(events, Sequence) or not all(isinstance(each, NewEvent) for each in events):
        found = events if not isinstance(events, Sequence) else next(e for e in events if not isinstance(e, NewEvent))
        msg = f"append takes a list of NewEvents: append(connection, [NewEvent(…), …]), not {type(found).__name__}"
        raise TypeError(msg)
    if not all(e.aggregate_type and e.event_type and e.partition_key != "" for e in cast("Sequence[NewEvent]", events)):
        msg = "aggregate_type, event_type and partition_key of an event must not be empty"
        raise ValueError(msg)
