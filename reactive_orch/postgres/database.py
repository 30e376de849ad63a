"""Connections to one PostgreSQL database, the loader of named statements, the translation of errors.

Guarantees: every connection talks to a primary, in READ COMMITTED, and is thrown away after anything but a clean query
error; every exception that leaves this package is one of `reactive_orch.errors`. Any lost connection raises the
*incarnation*: whoever remembers something of the database compares it and forgets (what came back after the loss may be
another server, or an older state of the same one).
"""

from __future__ import annotations

import contextlib
import re
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import anyio
import asyncpg

from reactive_orch.config import shown
from reactive_orch.errors import ConfigError, ReactiveOrchError, Standby, Superseded, Unavailable
from reactive_orch.postgres.connection import BatchConnection

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Mapping
    from pathlib import Path

    from asyncpg.pool import PoolConnectionProxy


AnyConnection: TypeAlias = "asyncpg.Connection[asyncpg.Record] | PoolConnectionProxy[asyncpg.Record]"

CONNECT_TIMEOUT_S = 5.0
STATEMENT_TIMEOUT_S = 6.0
"""Of every statement of ours outside batches: just above the server's statement_timeout, for a dead network."""
CLEANUP_TIMEOUT_S = 2.0
"""No clean-up may hang on a broken link longer than this; then the connection is terminated."""

COORDINATION_CONNECTIONS_MAX = 4
"""Observations, changes and take-overs; a take-over may wait for a row while the others go on."""

_COMMON_SETTINGS = {
    "default_transaction_isolation": "read committed",  # the frontier needs a new snapshot per statement
    "client_connection_check_interval": "500ms",  # a backend in mid-query notices that its client has died
    "tcp_keepalives_idle": "5",
    "tcp_keepalives_interval": "2",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "10000",
    "idle_session_timeout": "0",
    "jit": "off",
}
_COORDINATION_SETTINGS = {
    # No handler runs here: nobody's operators and functions take the place of PostgreSQL's.
    "search_path": "pg_catalog, pg_temp",
    "lock_timeout": "2s",
    "statement_timeout": "5s",
    "idle_in_transaction_session_timeout": "5s",
}


def load_statements(sql_file: Path) -> SimpleNamespace:
    """Return the statements of a .sql file as attributes, under the names of their `-- name:` lines."""
    parts = re.split(r"^-- name: (\w+)\n", sql_file.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return SimpleNamespace(**dict(zip(parts[1::2], (text.strip() for text in parts[2::2]), strict=True)))


_LOST = (
    OSError,  # TimeoutError included: the answer may still come, so the connection is of no use
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,  # too many connections, disk full, out of memory: it may get better
    asyncpg.PostgresSystemError,
    asyncpg.IdleInTransactionSessionTimeoutError,
    asyncpg.ReadOnlySQLTransactionError,
)
_CLOSED = asyncpg.ObjectNotInPrerequisiteStateError  # the database accepts no connections for now
_REFUSED = (asyncpg.InvalidAuthorizationSpecificationError, asyncpg.InvalidCatalogNameError, _CLOSED)
_REFUSED_SETTINGS = (asyncpg.UndefinedObjectError, asyncpg.CantChangeRuntimeParamError)
_CONFLICTS = (asyncpg.SerializationError, asyncpg.DeadlockDetectedError)
_NO_SCHEMA = (asyncpg.UndefinedTableError, asyncpg.UndefinedFunctionError, asyncpg.InvalidSchemaNameError)


def is_conflict(error: BaseException) -> bool:
    """Tell whether an error, or one in a group of them, says that the transaction met another one: do it again."""
    if isinstance(error, BaseExceptionGroup):
        return any(is_conflict(inner) for inner in error.exceptions)
    return isinstance(error, _CONFLICTS)


def took_too_long(error: BaseException) -> bool:
    """Tell whether an error of ours says that a time-out ended a statement: the server's, or ours."""
    return isinstance(error.__cause__, (TimeoutError, asyncpg.QueryCanceledError))


def is_lost(error: BaseException, connection: AnyConnection) -> bool:
    """Tell whether an error of whoever used this connection means that the server is gone or has ended it."""
    server_ended_it = (asyncpg.OperatorInterventionError, asyncpg.IdleInTransactionSessionTimeoutError)
    return is_closed(connection) or (
        isinstance(error, server_ended_it) and not isinstance(error, asyncpg.QueryCanceledError)
    )


def is_closed(connection: AnyConnection) -> bool:
    """Tell whether a connection is gone. asyncpg refuses to say so of a borrowed one that its pool has dropped."""
    try:
        return connection.is_closed()
    except asyncpg.InterfaceError:
        return True


def drop(connection: AnyConnection) -> None:
    """Close a connection without a word to the server."""
    if not is_closed(connection):
        connection.terminate()


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """Turn asyncpg's exceptions into ours, keeping them as the cause.

    Raises Unavailable (lost, refused), Standby, Superseded (do it again) or ConfigError (URL, schema, privileges).
    """
    try:
        yield
    except ReactiveOrchError:
        raise
    except (*_CONFLICTS, asyncpg.LockNotAvailableError, asyncpg.QueryCanceledError) as error:
        raise Superseded(_one_line(error)) from error
    except asyncpg.TargetServerAttributeNotMatched as error:
        raise Standby(_STANDBY) from error
    except (asyncpg.ClientConfigurationError, *_REFUSED_SETTINGS) as error:
        msg = f"the database URL cannot be used: {_one_line(error)}"
        raise ConfigError(msg) from error
    except (*_LOST, *_REFUSED) as error:
        raise Unavailable(_one_line(error)) from error
    except _NO_SCHEMA as error:
        msg = "the schema reactive_orch is missing or older than this program: run `python -m reactive_orch migrate`"
        raise ConfigError(msg) from error
    except asyncpg.InsufficientPrivilegeError as error:
        msg = f"the database user lacks a privilege: {_one_line(error)}"
        raise ConfigError(msg) from error


_STANDBY = "the server is a standby: give the address of the primary, or all hosts in one URL"


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


class Database:
    """What one process needs of one database: two bounded pools, single connections, and the incarnation."""

    def __init__(self, url: str, *, label: str, connections_max: int, handler_timeout_s: float) -> None:
        """Remember how to connect; nothing is opened yet.

        `label` ends the connections' application_name; `connections_max` bounds the processing pool.
        """
        self.url = url
        self.label = label
        self.incarnation = 0
        self._borrowed: set[AnyConnection] = set()
        self.on_lost: list[Callable[[], None]] = []
        self.waited: Callable[[str, float], None] = lambda _pool, _seconds: None
        self._connections_max, self._handler_timeout_s = connections_max, handler_timeout_s

    def _pool(
        self, kind: str, size: int, settings: Mapping[str, str], timeout_s: float
    ) -> asyncpg.Pool[asyncpg.Record]:
        return asyncpg.create_pool(
            self.url,
            min_size=0,
            max_size=size,
            connect=self._connect,
            reset=_keep_session,
            command_timeout=timeout_s,
            max_inactive_connection_lifetime=60.0,
            **self._connect_arguments(kind, settings),
        )

    def _connect_arguments(self, kind: str, settings: Mapping[str, str]) -> dict[str, Any]:
        name = f"reactive_orch:{kind}:{self.label}"[:63]
        return {
            "connection_class": BatchConnection,
            "timeout": CONNECT_TIMEOUT_S,
            "target_session_attrs": "primary",
            "server_settings": {**_COMMON_SETTINGS, **settings, "application_name": name},
        }

    def lost(self) -> None:
        """Note that a connection was lost: from here on nothing remembered is valid, nor is any pooled connection."""
        self.incarnation += 1
        for forget in self.on_lost:
            forget()

    def cut(self) -> None:
        """End every pooled connection in use: the network has swallowed them, and their users would wait for long."""
        for connection in self._borrowed:
            drop(connection)

    async def connect(self, kind: str, timeout_s: float = STATEMENT_TIMEOUT_S) -> asyncpg.Connection[asyncpg.Record]:
        """Open a connection of its own, outside the pools; its statements end within the time-out.

        Raises Unavailable or ConfigError.
        """
        with translated():
            return await self._connect(
                self.url, command_timeout=timeout_s, **self._connect_arguments(kind, _COORDINATION_SETTINGS)
            )

    async def renew(self) -> None:
        """Let connections for batches be made anew before their next use: types and plans they know may be stale."""
        await self._processing.expire_connections()

    def processing(self) -> contextlib.AbstractAsyncContextManager[AnyConnection]:
        """Borrow a connection for a batch."""
        return self._borrow(self._processing)

    def coordination(self) -> contextlib.AbstractAsyncContextManager[AnyConnection]:
        """Borrow a connection with short time-outs for one statement."""
        return self._borrow(self._coordination)

    @contextlib.asynccontextmanager
    async def _borrow(self, pool: asyncpg.Pool[asyncpg.Record]) -> AsyncIterator[AnyConnection]:
        began = time.monotonic()
        with translated():
            connection = await self._acquire(pool)
        self.waited("work" if pool is self._processing else "coordination", time.monotonic() - began)
        incarnation = self.incarnation
        self._borrowed.add(connection)
        try:
            with translated():
                yield connection
        except Unavailable:
            if incarnation == self.incarnation:
                self.lost()
            raise
        finally:
            self._borrowed.discard(connection)
            await _give_back(pool, connection)

    async def _acquire(self, pool: asyncpg.Pool[asyncpg.Record]) -> PoolConnectionProxy[asyncpg.Record]:
        """Take a connection of this incarnation; an older one may lead to a server that is the primary no more.

        Raises Unavailable when the incarnation changes meanwhile: whoever asked did so for a reason that is gone.
        """
        incarnation = self.incarnation
        while True:
            connection = await pool.acquire()
            born = cast("BatchConnection", connection).marks.incarnation
            if born == incarnation == self.incarnation:
                return connection
            connection.terminate()
            await _give_back(pool, connection)
            if incarnation != self.incarnation:
                msg = "the database was lost meanwhile"
                raise Unavailable(msg)

    async def _connect(self, *args: Any, **kwargs: Any) -> BatchConnection:
        incarnation = self.incarnation
        # Shielded, its own time-out bounds it: asyncpg leaves a future behind when it is cancelled while it connects.
        with anyio.CancelScope(shield=True):
            try:
                connection: BatchConnection = await asyncpg.connect(*args, **kwargs)
            except OSError as error:  # of which not every event loop says whom it could not reach
                msg = f"{_one_line(error)} ({shown(self.url)})"
                raise Unavailable(msg) from error
        connection.marks.incarnation = incarnation
        return connection

    @property
    def pools(self) -> dict[str, asyncpg.Pool[asyncpg.Record]]:
        """The pools by the kind of their connections."""
        return {"work": self._processing, "coordination": self._coordination}

    async def open(self) -> None:
        """Make the pools, which belong to this event loop; they connect when first used."""
        idle_limit_s = self._handler_timeout_s + 5  # just above: the runtime's own time-out strikes first
        processing_settings = {"idle_in_transaction_session_timeout": f"{idle_limit_s:.0f}s"}
        self._processing = self._pool("work", self._connections_max, processing_settings, idle_limit_s)
        self._coordination = self._pool(
            "coordination", COORDINATION_CONNECTIONS_MAX, _COORDINATION_SETTINGS, STATEMENT_TIMEOUT_S
        )
        await self._processing
        await self._coordination

    async def close(self) -> None:
        """Close all pooled connections within bounded time, whatever the state of the network."""
        for pool in (self._processing, self._coordination):
            with anyio.move_on_after(CLEANUP_TIMEOUT_S, shield=True) as scope:
                await pool.close()
            if scope.cancelled_caught:
                pool.terminate()


async def _give_back(pool: asyncpg.Pool[asyncpg.Record], connection: PoolConnectionProxy[asyncpg.Record]) -> None:
    # Still in a transaction: whoever borrowed it was cancelled or failed half-way, so its state is unknown.
    if not is_closed(connection) and connection.is_in_transaction():
        connection.terminate()
    # InternalClientError: the server ended it while its user was cancelled, and the pool has it back already.
    with anyio.move_on_after(CLEANUP_TIMEOUT_S, shield=True), contextlib.suppress(asyncpg.InternalClientError):
        await pool.release(connection)


async def _keep_session(_connection: object) -> None:
    """Spare each batch the pool's reset, a round trip: what a batch sets is local to its transaction."""
