"""Connections to one PostgreSQL database, the loader of named statements, the translation of errors.

Guarantees: every connection talks to a primary, in READ COMMITTED, and is thrown away after anything but a clean query
error; every exception that leaves this package is one of `reactive_orch.errors`. Any lost connection raises the
*incarnation*: whoever remembers something of the database compares it and forgets (what came back after the loss may be
another server, or an older state of the same one).
"""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, TypeAlias

import anyio
import asyncpg

from reactive_orch.errors import ConfigError, ReactiveOrchError, Standby, Superseded, Unavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Mapping
    from pathlib import Path

    from asyncpg.pool import PoolConnectionProxy

    _Connection = asyncpg.Connection[asyncpg.Record]
else:
    _Connection = asyncpg.Connection  # generic in its stubs only

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
    asyncpg.TooManyConnectionsError,
    asyncpg.IdleInTransactionSessionTimeoutError,
    asyncpg.ReadOnlySQLTransactionError,
)
_REFUSED = (asyncpg.InvalidAuthorizationSpecificationError, asyncpg.InvalidCatalogNameError)
_REFUSED_SETTINGS = (asyncpg.UndefinedObjectError, asyncpg.CantChangeRuntimeParamError)
_CONFLICTS = (asyncpg.SerializationError, asyncpg.DeadlockDetectedError)
_NO_SCHEMA = (asyncpg.UndefinedTableError, asyncpg.UndefinedFunctionError, asyncpg.InvalidSchemaNameError)


def is_transient(error: BaseException, connection: AnyConnection) -> bool:
    """Tell whether a handler's error says nothing about the handler: a conflict, or its connection is gone."""
    if isinstance(error, asyncpg.QueryCanceledError):
        return False
    server_ended_it = (asyncpg.OperatorInterventionError, asyncpg.IdleInTransactionSessionTimeoutError)
    return connection.is_closed() or isinstance(error, (*_CONFLICTS, *server_ended_it))


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
    text = " ".join(str(error).split())
    return text or type(error).__name__


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
        idle_limit_s = handler_timeout_s + 5  # just above: the runtime's own time-out strikes first
        processing_settings = {"idle_in_transaction_session_timeout": f"{idle_limit_s:.0f}s"}
        self._processing = self._pool("work", connections_max, processing_settings, handler_timeout_s)
        self._coordination = self._pool(
            "coordination", COORDINATION_CONNECTIONS_MAX, _COORDINATION_SETTINGS, STATEMENT_TIMEOUT_S
        )

    def _pool(
        self, kind: str, size: int, settings: Mapping[str, str], timeout_s: float
    ) -> asyncpg.Pool[asyncpg.Record]:
        return asyncpg.create_pool(
            self.url,
            min_size=0,
            max_size=size,
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

    def lost(self, incarnation: int) -> None:
        """Note that a connection made in this incarnation was lost: from here on nothing remembered is valid."""
        if incarnation == self.incarnation:
            self.incarnation += 1
            for forget in self.on_lost:
                forget()

    def cut(self) -> None:
        """End every pooled connection in use: the network has swallowed them, and their users would wait for long."""
        for connection in self._borrowed:
            connection.terminate()

    async def connect(self, kind: str, timeout_s: float = STATEMENT_TIMEOUT_S) -> asyncpg.Connection[asyncpg.Record]:
        """Open a connection of its own, outside the pools; its statements end within the time-out.

        Raises Unavailable or ConfigError.
        """
        with translated():
            connection: _Connection = await asyncpg.connect(
                self.url, command_timeout=timeout_s, **self._connect_arguments(kind, _COORDINATION_SETTINGS)
            )
        return connection

    def processing(self) -> contextlib.AbstractAsyncContextManager[AnyConnection]:
        """Borrow a connection for one batch."""
        return self._borrow(self._processing)

    def coordination(self) -> contextlib.AbstractAsyncContextManager[AnyConnection]:
        """Borrow a connection with short time-outs for one statement."""
        return self._borrow(self._coordination)

    @contextlib.asynccontextmanager
    async def _borrow(self, pool: asyncpg.Pool[asyncpg.Record]) -> AsyncIterator[AnyConnection]:
        incarnation = self.incarnation
        connection: PoolConnectionProxy[asyncpg.Record] | None = None
        try:
            with translated():
                connection = await pool.acquire()
                self._borrowed.add(connection)
                yield connection
        except Unavailable:
            self.lost(incarnation)
            raise
        finally:
            if connection is not None:
                self._borrowed.discard(connection)
                await _give_back(pool, connection)

    async def open(self) -> None:
        """Start the pools; they connect when first used."""
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
    if connection.is_closed() or connection.is_in_transaction():
        connection.terminate()
    with anyio.move_on_after(CLEANUP_TIMEOUT_S, shield=True):
        await pool.release(connection)


async def _keep_session(_connection: object) -> None:
    """Spare each batch the pool's reset, a round trip: what a batch sets is local to its transaction."""


@dataclass(slots=True)
class BatchMarks:
    """What is put off to the end of the batch that a connection is in."""

    put_off: list[Any] | None = None
    """Appends of the handlers; None outside a batch."""
    sealed_commit: str | None = None
    """What to send instead of the next COMMIT."""


class BatchConnection(_Connection):
    """A connection that can be inside a batch."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.marks = BatchMarks()

    async def execute(self, query: str, *args: Any, timeout: float | None = None) -> str:  # noqa: ASYNC109 - asyncpg's own
        """Execute as asyncpg does; the COMMIT of a batch is sent together with the statement that seals it."""
        if self.marks.sealed_commit is not None and query == "COMMIT;":
            query, self.marks.sealed_commit = self.marks.sealed_commit, None
        return await super().execute(query, *args, timeout=timeout)
