"""A connection that can be inside a batch: what is put off to the batch's end is kept on it."""

from __future__ import annotations

import functools
import socket
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import asyncpg
from asyncpg.pool import PoolConnectionProxy

from reactive_orch.incarnation import NEVER

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Collection

    from asyncpg.prepared_stmt import PreparedStatement

    from reactive_orch.incarnation import Incarnation, Server

    _Connection = asyncpg.Connection[asyncpg.Record]
else:
    _Connection = asyncpg.Connection  # generic in its stubs only


@dataclass(slots=True)
class BatchMarks:
    """What is known of the batch that a connection is in."""

    put_off: list[Any] | None = None
    """Appends of the handlers; None outside a batch."""
    changed: bool = False
    """A handler has changed what asyncpg itself keeps of this connection: no statement takes that back."""
    incarnation: Incarnation = NEVER
    """Of the database, when this connection was made."""
    server: Server | None = None
    """Where it leads, as it has told when it was made."""
    failed_at: set[int] = field(default_factory=set)
    """Positions of the events that were tried alone on it, and have failed."""
    unused_since: float | None = None
    """Since when nobody has it, by the monotonic clock, if it is one of a pool; None while somebody has."""
    given_up: bool = False
    """It was ended on this side: its end is no news."""

    def take_put_off(self) -> list[Any]:
        """Return what was put off, and put nothing off any more."""
        taken, self.put_off = self.put_off or [], None
        return taken


def _changing(name: str) -> Any:
    """Return a method of asyncpg's that is noted when a handler calls it."""
    original = getattr(asyncpg.Connection, name)

    @functools.wraps(original)
    def changing(self: BatchConnection, *args: Any, **kwargs: Any) -> Any:
        self.marks.changed = self.marks.changed or self.marks.put_off is not None
        return original(self, *args, **kwargs)

    return changing


AnyConnection: TypeAlias = "asyncpg.Connection[asyncpg.Record] | PoolConnectionProxy[asyncpg.Record]"

_KEEPALIVE = {"TCP_KEEPIDLE": 5, "TCP_KEEPALIVE": 5, "TCP_KEEPINTVL": 2, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": 10_000}
"""By name, as not every system has all of them (TCP_KEEPALIVE is macOS's TCP_KEEPIDLE): with these a host that has
vanished is noticed in about 10 s, whether the connection is idle or waits for an answer. The server does the same."""


ASSIGNED_BY_HAND = 10_000
"""Types with lesser oids are PostgreSQL's own, and the same in every database of a version."""

_own_types: dict[tuple[object, frozenset[int]], Any] = {}
"""Version of the server, oids → what asyncpg has to know of these types."""


def _message(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("!i", len(body) + 4) + body


_BEGIN = (
    _message(b"P", b"\0BEGIN READ WRITE\0" + struct.pack("!h", 0))
    + _message(b"B", b"\0\0" + struct.pack("!hhh", 0, 0, 0))
    + _message(b"E", b"\0" + struct.pack("!i", 0))
)
"""Parse, Bind and Execute, without the Sync that would ask for an answer: that of the next statement asks for both."""


class _NothingSent:
    """In place of a statement with which asyncpg looks types up: if that has no name, it has replaced another."""

    name = "nothing was sent"


class BatchConnection(_Connection):
    """A connection that can be inside a batch."""

    set_type_codec = _changing("set_type_codec")
    reset_type_codec = _changing("reset_type_codec")
    set_builtin_type_codec = _changing("set_builtin_type_codec")
    add_query_logger = _changing("add_query_logger")
    add_listener = _changing("add_listener")
    add_log_listener = _changing("add_log_listener")
    add_termination_listener = _changing("add_termination_listener")
    _transport: asyncio.Transport
    _protocol: Any
    _stmt_cache: Any
    _query_loggers: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.marks = BatchMarks()

    def begin_with(self, query: str) -> bool:
        """Send BEGIN READ WRITE, to be executed in the round trip of this query, which must be the next thing sent.

        Nothing is sent, and False returned, if it has not been prepared here: that takes a round trip of its own.
        asyncpg passes over the answers to what comes before a prepared statement, as it may have to parse that anew.
        """
        statement = query, self._protocol.get_record_class(), False
        known = self._stmt_cache.has(statement) and not self._query_loggers
        if known:
            self._transport.write(_BEGIN)
        return known

    def nest(self) -> None:
        """Make savepoints of whatever asyncpg is asked for as a transaction: it does not know of our own BEGIN."""
        self._top_xact = self.transaction()

    def unnest(self) -> None:
        """Let asyncpg begin transactions again."""
        self._top_xact = None  # type: ignore[assignment]  # as asyncpg does; its stubs leave it out

    async def _introspect_types(self, typeoids: Collection[int], timeout: float | None) -> Any:  # noqa: ASYNC109 - asyncpg's
        """Look types up as asyncpg does, but PostgreSQL's own only once: each new connection needs the same ones."""
        look_up = super()._introspect_types  # type: ignore[misc]  # its stubs leave it out
        if max(typeoids) >= ASSIGNED_BY_HAND:
            return await look_up(typeoids, timeout)
        key = self.get_server_version(), frozenset(typeoids)
        if key in _own_types:
            return _own_types[key], _NothingSent
        types, statement = await look_up(typeoids, timeout)
        _own_types[key] = types
        return types, statement

    @property
    def socket(self) -> socket.socket | None:
        """What it talks through, as far as the event loop tells."""
        found: socket.socket | None = self._transport.get_extra_info("socket")
        return found

    def keep_alive(self) -> None:
        """Let the operating system find out that the other side has vanished."""
        own = self.socket
        if own is None or own.family == getattr(socket, "AF_UNIX", None):
            return
        own.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _KEEPALIVE.items():
            if hasattr(socket, name):
                own.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)

    def terminate(self) -> None:
        """Terminate as asyncpg does."""
        self.marks.given_up = True
        super().terminate()

    async def close(self, *, timeout: float | None = None) -> None:  # noqa: ASYNC109 - asyncpg's own
        """Close as asyncpg does."""
        self.marks.given_up = True
        await super().close(timeout=timeout)

    async def execute(self, query: str, *args: Any, timeout: float | None = None) -> str:  # noqa: ASYNC109 - asyncpg's own
        """Execute as asyncpg does. Raises InterfaceError, too, when a handler has ended its transaction with it."""
        tag = await super().execute(query, *args, timeout=timeout)
        if self.marks.put_off is not None and not self.is_in_transaction():
            # At once: what a handler wrote after its ROLLBACK would be committed statement by statement.
            msg = "a handler may not end the transaction it is given"
            raise asyncpg.InterfaceError(msg)
        return tag


def marks_of(connection: AnyConnection) -> BatchMarks:
    """Return what is kept on one of our connections, borrowed from a pool or not."""
    return cast("BatchConnection", connection).marks


async def in_cache(connection: AnyConnection, query: str) -> PreparedStatement[asyncpg.Record]:
    """Return a statement as `prepare` does, but out of the connection's cache, without a round trip if it is there."""
    own = cast("Any", connection)
    statement: PreparedStatement[asyncpg.Record] = await own._prepare(query, use_cache=True)  # noqa: SLF001 - as its `fetch`
    return statement


def is_connection(connection: object) -> bool:
    """Tell whether this is a connection of asyncpg, borrowed from a pool or not."""
    return isinstance(connection, (asyncpg.Connection, PoolConnectionProxy))


def itself(connection: AnyConnection) -> object:
    """Return the connection that a pool has lent, of which the pool makes another object each time."""
    return getattr(connection, "_con", connection)


def is_pool(connection: object) -> bool:
    """Tell whether this is a pool, which does some of what a connection does."""
    return isinstance(connection, asyncpg.Pool)


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
