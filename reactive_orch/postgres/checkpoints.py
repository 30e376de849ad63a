"""The checkpoints: load them, and the one compare-and-swap on which all safety rests.

    BEGIN
    swap     the rows of the partitions touched: locked in partition order, those held by others skipped; moved where
             position and epoch are the expected ones; as many as sent, or roll back
    …        whoever opened the batch runs the handlers
    seal     still the same transaction? then COMMIT, in the same round trip

Between swap and COMMIT the rows are locked, so two believers cannot both work on a partition; before the swap nothing
is done. The deferred trigger on `checkpoints` refuses any COMMIT without the seal, so a handler cannot commit half a
batch by itself.
"""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, cast

import anyio
import asyncpg

from reactive_orch.errors import HandlerFailed, Refused, Superseded, Unavailable, described
from reactive_orch.model import Checkpoint, Filter, Partition, Position, Projection, Swap
from reactive_orch.postgres import log
from reactive_orch.postgres.database import (
    CLEANUP_TIMEOUT_S,
    drop,
    is_closed,
    is_conflict,
    is_lost,
    load_statements,
    translated,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Sequence

    from asyncpg.transaction import Transaction

    from reactive_orch.postgres.connection import BatchConnection, BatchMarks
    from reactive_orch.postgres.database import AnyConnection

_SQL = load_statements(Path(__file__).with_suffix(".sql"))


def filter_text(wanted: Filter) -> str:
    """Return the filter as it is recorded: JSON."""
    return json.dumps({"aggregate_types": wanted.aggregate_types, "bounded_contexts": wanted.bounded_contexts})


@contextlib.asynccontextmanager
async def batch(
    connection: AnyConnection, replica_set: str, projection: str, swaps: Sequence[Swap]
) -> AsyncIterator[int]:
    """Open a batch: a transaction that has moved the checkpoints. Yields how many events these partitions have parked.

    The body's exceptions pass through after a rollback. Raises Superseded when a checkpoint is held by another
    transaction or stands elsewhere, HandlerFailed when the database refuses what the body did, Unavailable when the
    connection is lost: then the outcome is unknown.
    """
    transaction = connection.transaction()
    marks = cast("BatchConnection", connection).marks
    try:
        with translated():
            await transaction.start()
            parked = await _swap(connection, replica_set, projection, swaps)
        marks.begin()
        yield parked
        await _finish(connection, transaction, marks)
    except BaseException:
        await _roll_back(connection, transaction)
        raise
    finally:
        marks.end()


async def _finish(connection: AnyConnection, transaction: Transaction, marks: BatchMarks) -> None:
    try:
        for columns, expected in marks.take_put_off():
            await log.append_columns(connection, columns, expected)
        marks.sealed_commit = _SQL.seal
        await transaction.commit()
    except asyncpg.InFailedSQLTransactionError as error:
        msg = "the handler caught a database error and went on; the database has given up its transaction"
        raise HandlerFailed(msg) from error
    except Exception as error:
        # What the database says here it says to the handler's statements: a deferred constraint, a conflict.
        if is_conflict(error):
            raise Superseded(str(error)) from error
        if is_lost(error, connection) or isinstance(error, OSError):
            raise Unavailable(str(error)) from error
        raise HandlerFailed(described(error)) from error


async def _swap(connection: AnyConnection, replica_set: str, projection: str, swaps: Sequence[Swap]) -> int:
    row = await connection.fetchrow(
        _SQL.swap,
        replica_set,
        projection,
        [swap.partition for swap in swaps],
        [swap.expected.position for swap in swaps],
        [swap.expected.epoch for swap in swaps],
        [swap.target for swap in swaps],
    )
    assert row is not None, "an aggregate returns one row"
    if row["swapped"] != len(swaps):
        msg = f"{len(swaps) - row['swapped']} of {len(swaps)} checkpoints of {projection} have moved or are held"
        raise Superseded(msg)
    return int(row["parked"])


async def _roll_back(connection: AnyConnection, transaction: Transaction) -> None:
    with anyio.move_on_after(CLEANUP_TIMEOUT_S, shield=True):
        try:
            if not is_closed(connection) and connection.is_in_transaction():
                await _say_rollback(connection, transaction)
        except Exception:  # noqa: BLE001 - the error that led here matters; this connection is done for
            drop(connection)


async def _say_rollback(connection: AnyConnection, transaction: Transaction) -> None:
    try:
        await transaction.rollback()
    except asyncpg.InterfaceError:  # after a COMMIT that was refused asyncpg's object is done, the server is not
        await connection.execute("ROLLBACK;")


async def load_free(
    connection: AnyConnection, replica_set: str, projection: Projection, partitions: Collection[Partition]
) -> dict[Partition, Checkpoint]:
    """Return the checkpoints that no transaction holds at this moment.

    Raises Refused when they are recorded with another filter than the projection's.
    """
    with translated():
        rows = await connection.fetch(
            _SQL.load_free, replica_set, projection.name, sorted(partitions), filter_text(projection.filter)
        )
    if not all(row["ours"] for row in rows):
        raise Refused(projection.name)
    return {row["partition"]: Checkpoint(row["position"], row["epoch"], row["parked"]) for row in rows}


async def await_free(
    connection: AnyConnection, replica_set: str, projection: str, partitions: Collection[Partition]
) -> None:
    """Wait until the first of these checkpoints is free, but no longer than a slice of 300 ms."""
    with translated():
        await connection.execute(_SQL.await_free, replica_set, projection, sorted(partitions))


async def proposed(connection: AnyConnection, replica_set: str, projection: str) -> str | None:
    """Return the filter that a refused worker wanted, as JSON; a rewind makes it the recorded one."""
    with translated():
        text: str | None = await connection.fetchval(_SQL.proposed, replica_set, projection)
    return text


async def rewind(connection: AnyConnection, replica_set: str, projection: str, to: Position | None) -> int:
    """Set all positions of a projection (None: keep them), raise the epoch, open the filter; return the partitions."""
    with translated():
        return int(await connection.fetchval(_SQL.rewind, replica_set, projection, to))


async def greatest(connection: AnyConnection) -> Position:
    """Return the greatest position that anything was saved at."""
    with translated():
        return int(await connection.fetchval(_SQL.greatest))


async def positions(connection: AnyConnection, replica_set: str) -> dict[str, dict[Partition, Position]]:
    """Return projection → partition → saved position."""
    with translated():
        rows = await connection.fetch(_SQL.positions, replica_set)
    saved: dict[str, dict[Partition, Position]] = {}
    for row in rows:
        saved.setdefault(row["projection"], {})[row["partition"]] = row["position"]
    return saved
