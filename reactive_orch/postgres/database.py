"""Connections to one PostgreSQL database, and the incarnation to which all that is read by them belongs.

Guarantees: every connection talks to a primary, in READ COMMITTED, and is thrown away after anything but a clean query
error, or a handler's failure in which it had no part; whatever is raised by more than a single statement's own fault is
one of `reactive_orch.errors`. Any lost connection raises the *incarnation*: whoever remembers something of the database
carries it along and forgets when it is over (what came back after the loss may be another server, or an older state of
the same one). And every connection of one incarnation leads to one server, timeline and database: each proves it when
it opens.
"""

from __future__ import annotations

import contextlib
import functools
import time
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakSet

import anyio
import asyncpg

from reactive_orch.errors import Exhausted, Superseded, TooManyConnections, Unavailable
from reactive_orch.postgres.admission import Admission
from reactive_orch.postgres.connecting import CONNECT_TIMEOUT_S, Connector, may_look_sooner
from reactive_orch.postgres.connection import AnyConnection, BatchConnection, drop, marks_of
from reactive_orch.postgres.faults import is_stale, translated
from reactive_orch.postgres.pool import Pool
from reactive_orch.postgres.resting import Resting
from reactive_orch.postgres.shortage import Shortage

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

    from asyncpg.pool import PoolConnectionProxy

    from reactive_orch.incarnation import Incarnation
    from reactive_orch.model import Position

STATEMENT_TIMEOUT_S = 6.0
"""The limit of our own statements, a batch's BEGIN and swap included. The server's (5 s) strikes first: this one is for
a dead network."""
IDLE_MARGIN_S = 5.0
"""How much longer than a handler a batch may be idle: the runtime's own time-out strikes first."""

WORK, COORDINATION = "work", "coordination"
"""The kinds of pooled connections: for batches and windows, and for one statement each."""

UNUSED_S = 60.0
"""A connection of a pool that nobody has had for so long is closed. Events that come more often find one."""
UNUSED_SHORT_S = 1.0
"""The same where connections were short of late: so that all processes get some in turn."""

MAKING_ROOM_S = (0.02, 0.1, 0.3)
"""How long to wait between attempts while connections are closed to make room for another one."""

_Opened = TypeVar("_Opened")

_COMMON_SETTINGS = {
    "default_transaction_isolation": "read committed",  # the frontier needs a new snapshot per statement
    "client_connection_check_interval": "500ms",  # a backend in mid-query notices that its client has died
    "tcp_keepalives_idle": "5",
    "tcp_keepalives_interval": "2",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "10000",
    "idle_session_timeout": "0",
    "jit": "off",
    "quote_all_identifiers": "off",  # the log is checked by what PostgreSQL says of the view
}
COORDINATION_SETTINGS = {
    # No handler runs here: nobody's operators and functions take the place of PostgreSQL's.
    "search_path": "pg_catalog, pg_temp",
    "lock_timeout": "2s",
    "statement_timeout": "5s",
    "idle_in_transaction_session_timeout": "5s",
}
DEADLOCK_MS = 100
"""After so long a batch that waits for a row has the server look for a deadlock, if this role may say so: PostgreSQL's
second is long for all who wait. (With `log_lock_waits` its log names waits from then on.)"""

LENT_SETTINGS = {"lock_timeout": COORDINATION_SETTINGS["lock_timeout"]}
"""Of a command's connection on which it runs its user's code."""


def batch_settings(handler_timeout_s: float) -> dict[str, str]:
    """Return what connections for batches ask for, of any role, if handlers may take so long."""
    idle_limit_s = handler_timeout_s + IDLE_MARGIN_S
    return {**_COMMON_SETTINGS, "idle_in_transaction_session_timeout": f"{idle_limit_s:.0f}s"}


class Database:
    """What one process needs of one database: two bounded pools, single connections, and the incarnation."""

    def __init__(
        self, url: str, *, label: str, connections_max: int, coordination_max: int = 4, handler_timeout_s: float
    ) -> None:
        """Remember how to connect; nothing is opened yet.

        `label` ends the connections' application_name. `connections_max` bounds the pool for batches and windows,
        `coordination_max` the other one; `handler_timeout_s`, with a margin, is how long a transaction in a batch may
        be idle, or one of its statements run.
        """
        self.label = label
        self.admission = Admission()
        self._connector = Connector(url)
        self.pools: dict[str, Pool] = {}
        """The pools by the kind of their connections; none before `open`."""
        self.resting = Resting(self.give_up)
        """Connections of this process's own that others may use at times."""
        self.shortage = Shortage()
        self._own: WeakSet[BatchConnection] = WeakSet()
        self._borrowed: set[AnyConnection] = set()
        self.waited: Callable[[str, float], None] = lambda _pool, _seconds: None
        self._sizes = {WORK: connections_max, COORDINATION: coordination_max}
        self._handler_timeout_s = handler_timeout_s
        self._by_right: dict[str, str] = {}
        """Settings of connections for batches that not every role may make."""

    def _work_arguments(self) -> dict[str, Any]:
        settings = {
            **batch_settings(self._handler_timeout_s),
            "default_transaction_read_only": "on",  # a batch begins as one that writes
            **self._by_right,
        }
        return _connect_arguments(self.label, WORK, settings, self._handler_timeout_s + IDLE_MARGIN_S)

    @property
    def incarnation(self) -> Incarnation:
        """The present one."""
        return self.admission.incarnation

    def lost(self) -> None:
        """Note that a connection was lost: from here on nothing remembered is valid, nor is any pooled connection."""
        self.admission.lost()

    def give_up(self, connection: BatchConnection, error: Exception | None = None) -> None:
        """End a connection of this process's own. A loss, unless that was noted before or the error is `Exhausted`."""
        noted, connection.marks.given_up = connection.marks.given_up, True
        drop(connection)
        if not noted and not isinstance(error, Exhausted):
            self.lost()

    @staticmethod
    def put_away(connection: BatchConnection) -> None:
        """End a connection of this process's own that is not needed any more: that is no loss."""
        connection.marks.given_up = True
        drop(connection)

    def cut(self) -> None:
        """End every connection in use: the network has swallowed them, and their users would wait for long. A loss."""
        for connection in (*self._borrowed, *self._own):
            drop(connection)
        self.lost()

    async def connect(
        self, kind: str, timeout_s: float = STATEMENT_TIMEOUT_S, settings: Mapping[str, str] = COORDINATION_SETTINGS
    ) -> BatchConnection:
        """Open a connection of its own, outside the pools; its statements end within the time-out.

        When the server ends it that is a loss, noted at once. Raises Unavailable or ConfigError.
        """
        settings = {**settings, "statement_timeout": f"{max(timeout_s, STATEMENT_TIMEOUT_S):.0f}s"}
        arguments = _connect_arguments(self.label, kind, settings, timeout_s)
        opening = functools.partial(self._connect, connection_class=BatchConnection, **arguments)
        connection = await _making_room(self.pools, kind, opening)
        connection.add_termination_listener(lambda _: self.give_up(connection))
        self._own.add(connection)
        return connection

    def close_unused(self, keep: Callable[[int], int]) -> None:
        """Close the pooled connections that nobody has had for a while.

        But as many of those for batches, the last used ones, as are to be kept beside so many outside the pools. That
        is no loss: nothing that was learned on them depends on their being open.
        """
        own = sum(not each.is_closed() for each in self._own)
        after_s, kept = (UNUSED_SHORT_S, 0) if self.shortage.was_lately else (UNUSED_S, keep(own))
        self.pools[WORK].close_unused(after_s, kept)
        self.pools[COORDINATION].close_unused(after_s, 0)

    async def renew(self) -> None:
        """Let connections for batches be made anew before their next use: types and plans they know may be stale."""
        await self.pools[WORK].renew()

    def processing(
        self, incarnation: Incarnation | None = None, position: Position | None = None
    ) -> contextlib.AbstractAsyncContextManager[AnyConnection]:
        """Borrow a connection for a batch or a window; for the event at `position`, one on which that has not failed.

        Raises Superseded if the incarnation that is given is over.
        """
        return self._borrow(WORK, incarnation, position)

    def coordination(
        self, incarnation: Incarnation | None = None
    ) -> contextlib.AbstractAsyncContextManager[AnyConnection]:
        """Borrow a connection with short time-outs for one statement; the incarnation as for `processing`."""
        return self._borrow(COORDINATION, incarnation)

    @contextlib.asynccontextmanager
    async def looking(self) -> AsyncIterator[AnyConnection]:
        """Borrow any connection with short time-outs, for a look now and then: one that rests, if any does."""
        if (resting := self.resting.free(self.incarnation)) is not None:
            async with self.resting.lent(resting) as connection:
                yield connection
        else:
            async with self.coordination() as connection:
                yield connection

    @contextlib.asynccontextmanager
    async def _borrow(
        self, kind: str, incarnation: Incarnation | None, position: Position | None = None
    ) -> AsyncIterator[AnyConnection]:
        began, pool = time.monotonic(), self.pools[kind]
        incarnation = self.incarnation if incarnation is None else incarnation
        with translated():
            connection = await _making_room(self.pools, kind, lambda: _take(self, pool, incarnation, position))
        self.waited(kind, time.monotonic() - began)
        self._borrowed.add(connection)
        try:
            with translated():
                yield connection
        except Exhausted:
            raise
        except Superseded as error:
            if is_stale(error):
                drop(connection)
                await pool.renew()
            raise
        except Unavailable:
            if incarnation == self.incarnation:
                self.lost()
            raise
        finally:
            self._borrowed.discard(connection)
            await pool.give_back(connection)

    async def _connect(self, *_: Any, **arguments: Any) -> BatchConnection:
        begun = self.incarnation
        # Shielded: asyncpg, cancelled while it connects, leaves a future behind. Its own time-outs bound it.
        try:
            with translated(), anyio.CancelScope(shield=True):
                connection = await self._connector.open(**arguments)
        except Exhausted as error:
            if isinstance(error.__cause__, asyncpg.TooManyConnectionsError):
                raise self.shortage.refused(error.__cause__) from error.__cause__
            raise
        try:
            self.admission.admit(connection, begun)
        except BaseException:
            connection.terminate()
            raise
        return connection

    async def open(self) -> None:
        """Make the pools, which belong to this event loop; they connect when first used."""
        coordination = _connect_arguments(self.label, COORDINATION, COORDINATION_SETTINGS, STATEMENT_TIMEOUT_S)
        self.pools = {
            kind: Pool(self._sizes[kind], self._connect, **arguments)
            for kind, arguments in ((WORK, self._work_arguments()), (COORDINATION, coordination))
        }
        for pool in self.pools.values():
            await pool.begin()

    async def allow(self, handler_timeout_s: float) -> None:
        """Let the transactions and statements of handlers last for so long, if that is longer than now.

        A connection has the limits of the slowest handler of its process, as any lane may get it. They are for a
        worker that has frozen or vanished in the middle of a batch; a handler's own time-out is the runtime's.
        """
        if handler_timeout_s > self._handler_timeout_s:
            self._handler_timeout_s = handler_timeout_s
            await self._remake_work()

    async def look_for_deadlocks_sooner(self) -> None:
        """Let the server look for deadlocks of batches sooner, if this role may say so.

        Raises Unavailable and Superseded.
        """
        async with self.coordination() as connection:
            may = await may_look_sooner(connection, DEADLOCK_MS)
        if may:
            self._by_right = {"deadlock_timeout": f"{DEADLOCK_MS}ms"}
            await self._remake_work()

    async def _remake_work(self) -> None:
        await self.pools[WORK].renew(**self._work_arguments())

    async def close(self) -> None:
        """Close all pooled connections within bounded time, whatever the state of the network."""
        for pool in self.pools.values():
            await pool.close()


def _connect_arguments(label: str, kind: str, settings: Mapping[str, str], timeout_s: float) -> dict[str, Any]:
    name = f"reactive_orch:{kind}:{label}"[:63]
    return {
        "command_timeout": timeout_s,
        "timeout": CONNECT_TIMEOUT_S,
        "target_session_attrs": "primary",
        "server_settings": {**_COMMON_SETTINGS, **settings, "application_name": name},
    }


async def _making_room(pools: Mapping[str, Pool], kind: str, open_one: Callable[[], Awaitable[_Opened]]) -> _Opened:
    """Open a connection of one kind; when it is refused, in place of others of this process that nobody has.

    At once: whoever is told that there is none tries again later, and then those others would be in its way again.
    """
    for pause_s in MAKING_ROOM_S:
        try:
            return await open_one()
        except TooManyConnections:
            if not sum(pools[other].close_unused(0.0, 0) for other in pools.keys() - {kind}):
                raise
            await anyio.sleep(pause_s)  # until the server has seen it
    return await open_one()


async def _take(
    database: Database, pool: Pool, incarnation: Incarnation, position: Position | None
) -> PoolConnectionProxy[asyncpg.Record]:
    """Take a connection of this incarnation; an older one may lead to a server that is the primary no more.

    Raises Superseded when the incarnation is over: whoever asked did so for a reason that is gone.
    """
    while incarnation == database.incarnation:
        connection = await _another(pool, position)
        if marks_of(connection).incarnation == incarnation == database.incarnation:
            return connection
        await _end(pool, connection)
    msg = "the database was lost meanwhile"
    raise Superseded(msg)


async def _another(pool: Pool, position: Position | None) -> PoolConnectionProxy[asyncpg.Record]:
    """Take a connection on which the event at a position has not failed; the others stay, if there is one more."""
    passed: list[PoolConnectionProxy[asyncpg.Record]] = []
    try:
        while True:
            try:
                connection = await pool.take(holds_some=bool(passed))
            except Exhausted:
                if not passed:
                    raise
                await _end(pool, passed.pop())
                await anyio.sleep(MAKING_ROOM_S[0])  # until the server has seen it
                continue
            if position not in marks_of(connection).failed_at:
                return connection
            if pool.may_give:
                passed.append(connection)
            else:  # whoever waits for others must hold none
                await _end(pool, connection)
    finally:
        for each in passed:
            await pool.give_back(each)


async def _end(pool: Pool, connection: PoolConnectionProxy[asyncpg.Record]) -> None:
    """Give back a borrowed connection that nobody is to have again: another one may be opened in its place."""
    drop(connection)
    await pool.give_back(connection)
