"""What tests ask of a server: databases of their own, and what is in them.

Databases are named by the one that was named to us, by the run of tests, and by the process. A run is over when no
session says that it is going on, as sessions of killed processes do not; whoever comes next removes what it has left.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import asyncpg

from reactive_orch.errors import ConfigError, HandlerFailed
from reactive_orch.model import OWN_LOG, Event
from reactive_orch.postgres.connecting import CONNECT_TIMEOUT_S, Connector
from reactive_orch.postgres.connection import BatchConnection
from reactive_orch.postgres.faults import one_line, translated
from reactive_orch.postgres.statements import load_statements

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from datetime import datetime

    from reactive_orch.model import Position
    from reactive_orch.postgres.connection import AnyConnection

_SQL = load_statements(Path(__file__).with_suffix(".sql"))
_LOCKS = 0x726F7465
"""The first number of our advisory locks, which tells them from others' ("rote")."""

_MAY_NOT_CREATE = (
    "the role of DATABASE_URL may not create databases, and each test needs one: ALTER ROLE … CREATEDB, or unset "
    "DATABASE_URL for the embedded PostgreSQL ({})"
)


@contextlib.asynccontextmanager
async def connected(url: str) -> AsyncIterator[BatchConnection]:
    """Connect for the block, with the server's settings. Raises Unavailable or ConfigError when that cannot be done."""
    with translated():
        connection = await Connector(url).open(timeout=CONNECT_TIMEOUT_S, connection_class=BatchConnection)
    try:
        yield connection
    finally:
        await connection.close(timeout=CONNECT_TIMEOUT_S)


@contextlib.asynccontextmanager
async def savepoint(tx: AnyConnection) -> AsyncIterator[None]:
    """Take back what the block has written when it raises; the transaction goes on.

    Raises HandlerFailed when the block cannot be kept, as it has swallowed an error or ended the transaction.
    """
    await tx.execute(_SQL.savepoint)
    try:
        yield
        await _release(tx)
    except Exception:
        if tx.is_in_transaction():
            with contextlib.suppress(asyncpg.InvalidSavepointSpecificationError):  # it is another transaction
                await tx.execute(_SQL.take_back)
        raise


async def _release(tx: AnyConnection) -> None:
    try:
        await tx.execute(_SQL.release)
    except asyncpg.InFailedSQLTransactionError:
        msg = "the handler caught a database error and went on; the database has given up its transaction"
        raise HandlerFailed(msg) from None
    except asyncpg.InvalidSavepointSpecificationError:
        msg = "the handler ended the transaction it was given"
        raise HandlerFailed(msg) from None


async def name_beginning(connection: AnyConnection) -> str:
    """Return what the names of all databases begin with that tests make when this one was named to them."""
    return f"reactive_orch_test_{await connection.fetchval(_SQL.number)}_"


async def begin(connection: AnyConnection, run: int) -> None:
    """Say that a run of tests is going on, as long as this connection lasts or until `end`."""
    await connection.execute(_SQL.alive, _LOCKS, run)


async def end(connection: AnyConnection, run: int) -> None:
    """Say that it goes on here no more."""
    await connection.execute(_SQL.ended, _LOCKS, run)


async def clean(connection: AnyConnection, beginning: str) -> None:
    """Drop the databases of runs that are over; their names begin so, and go on with the run's number."""
    databases = [row["datname"] for row in await connection.fetch(_SQL.databases, beginning)]
    for run in {name.removeprefix(beginning).split("_")[0] for name in databases}:
        if await connection.fetchval(_SQL.is_over, _LOCKS, int(run)):
            for name in databases:
                if name.startswith(f"{beginning}{run}_"):
                    await drop(connection, name)
            await connection.execute(_SQL.unlock, _LOCKS, int(run))


async def exists(connection: AnyConnection, name: str) -> bool:
    """Tell whether there is a database of this name."""
    return name in {row["datname"] for row in await connection.fetch(_SQL.databases, name)}


async def copy(connection: AnyConnection, source: str, name: str) -> None:
    """Make a database as a copy of another one, to which nobody is connected.

    Raises ConfigError when the role may not, Unavailable when the connection is lost.
    """
    with translated():
        try:
            await connection.execute(await connection.fetchval(_SQL.create, name, source))
        except asyncpg.InsufficientPrivilegeError as error:
            raise ConfigError(_MAY_NOT_CREATE.format(one_line(error))) from error


async def rename(connection: AnyConnection, name: str, to: str) -> None:
    """Give a database, to which nobody is connected, another name."""
    await connection.execute(await connection.fetchval(_SQL.rename, name, to))


async def drop(connection: AnyConnection, name: str) -> None:
    """Drop a database, if there is one of this name, whoever is connected to it."""
    await connection.execute(await connection.fetchval(_SQL.drop, name))


async def set_created_at(connection: AnyConnection, positions: Sequence[Position], created_at: datetime) -> None:
    """Let the events at these positions have been created then."""
    await connection.execute(_SQL.created_at, positions, created_at)


async def events_at(connection: AnyConnection, positions: Sequence[Position]) -> list[Event]:
    """Return the events of the own log at these positions, in order."""
    return [Event(*row) for row in await connection.fetch(_SQL.at, OWN_LOG, positions)]


async def all_rows(connection: AnyConnection) -> list[Any]:
    """Return table and row, as JSON, of all that is in a user's tables, but for columns that a sequence fills.

    Raises ValueError when there are no tables.
    """
    reading = await connection.fetchval(_SQL.reading_all)
    if reading is None:
        msg = "there are no tables whose content could be compared: make them, or say by `outcome` what is to be"
        raise ValueError(msg)
    return await connection.fetch(reading)
