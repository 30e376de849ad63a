"""Connections of one kind, lent to whoever needs one: opened when they are needed, closed when nobody has for a while.

asyncpg's pool opens one for everybody who finds none free, all at once. Here whoever comes while one is being opened
waits for a moment: it may take that one, or the first that is given back. So lanes that wake together after a quiet
time share a few connections, instead of each waiting for its own. And while the server refuses more of them, those that
there are go round.
"""

from __future__ import annotations

import contextlib
import itertools
import time
from bisect import insort
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

import anyio
import asyncpg

from reactive_orch.errors import Exhausted
from reactive_orch.postgres.connection import BatchConnection, drop, is_closed, marks_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from asyncpg.pool import PoolConnectionProxy

    Lent = PoolConnectionProxy[asyncpg.Record]

CLEANUP_TIMEOUT_S = 2.0
"""No clean-up may hang on a broken link longer than this; then the connection is terminated."""

PATIENCE_S = 0.02
"""How long somebody waits for a connection that is being opened for somebody else before opening another one."""
REFUSED_S = 1.0
"""For how long no more are opened after the server has refused one, while there are others."""
CAUTIOUS_S = 30.0
"""For how long after that only one is opened at a time."""


class Pool:
    """At most `most` connections."""

    def __init__(self, most: int, connect: Callable[..., Awaitable[BatchConnection]], **arguments: Any) -> None:
        """Open nothing yet. `arguments` go to `connect`."""
        self.most = most
        self._connect_one = connect
        self._connections: WeakSet[BatchConnection] = WeakSet()
        self._opening = 0
        self._refused_at = -CAUTIOUS_S
        self._numbers = itertools.count()
        self._waiting: list[int] = []
        """The numbers of those who wait for one, in the order in which they came."""
        self._changed = anyio.Event()
        """A connection was opened, refused or given back, or somebody waits no more, since this was made."""
        self._pool: asyncpg.Pool[asyncpg.Record] = asyncpg.create_pool(
            min_size=0,
            max_size=most,
            connect=self._connect,
            reset=_keep_session,
            max_inactive_connection_lifetime=0,  # `close_unused` does that, and knows how many are to stay
            connection_class=BatchConnection,
            **arguments,
        )

    @property
    def idle(self) -> int:
        """How many are open that nobody has."""
        return self._pool.get_idle_size()

    @property
    def used(self) -> int:
        """How many are lent."""
        return self._pool.get_size() - self.idle

    @property
    def may_give(self) -> bool:
        """Whether one can be had without waiting for somebody who has one."""
        return self.idle > 0 or not (self._is_full or self._refused_for_s)

    @property
    def _is_full(self) -> bool:
        return self._pool.get_size() + self._opening >= self.most

    async def begin(self) -> None:
        """Belong to the running event loop from now on."""
        await self._pool

    async def take(self, *, holds_some: bool = False) -> Lent:
        """Borrow a connection; `give_back` must follow. Raises what `connect` raises.

        But when the server refuses another one it waits for those that there are, or come. Not if the caller
        `holds_some` of them: it would wait for what only it can give back. Then Exhausted is raised.
        """
        began, number = time.monotonic(), next(self._numbers)
        while True:
            if not holds_some:
                await self._wait(number, began)
            elif self._is_full and not self.idle:
                msg = "all connections are in use"
                raise Exhausted(msg)
            try:
                return await self._take()
            except Exhausted:
                self._refused_at = time.monotonic()
                if holds_some or not (self._pool.get_size() or self._opening):
                    raise

    async def _wait(self, number: int, began: float) -> None:
        """Wait until one is free that nobody waits for who came before, or another may be opened.

        Who was refused another one goes on waiting in its old place.
        """
        insort(self._waiting, number)
        try:
            while self.idle <= self._waiting.index(number) and (patience_s := self._patience_s(began)) > 0:
                with anyio.move_on_after(patience_s):
                    await self._changed.wait()
        finally:
            self._waiting.remove(number)
            if self._waiting:
                self._tell()

    def _patience_s(self, began: float) -> float:
        """Return how long to wait for what others have, or open, before opening one: 0 if that is of no use."""
        if self._pool.get_size() and self._refused_for_s:
            return self._refused_for_s
        if not self._opening or self._is_full:  # of the latter asyncpg keeps the order
            return 0.0
        if time.monotonic() - self._refused_at < CAUTIOUS_S:
            return CAUTIOUS_S
        return began + PATIENCE_S - time.monotonic()

    @property
    def _refused_for_s(self) -> float:
        return max(self._refused_at + REFUSED_S - time.monotonic(), 0.0)

    async def _take(self) -> Lent:
        connection: Lent = await self._pool.acquire()  # its stubs are too wide
        marks_of(connection).unused_since = None
        return connection

    async def _connect(self, *arguments: Any, **named: Any) -> BatchConnection:
        self._opening += 1
        try:
            connection = await self._connect_one(*arguments, **named)
        finally:
            self._opening -= 1
            self._tell()
        self._connections.add(connection)
        return connection

    def _tell(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()

    async def give_back(self, connection: Lent) -> None:
        """Take a connection back. One that is still in a transaction is ended, as its state is unknown."""
        if not is_closed(connection):
            marks_of(connection).unused_since = time.monotonic()
            if connection.is_in_transaction():  # whoever had it was cancelled, or failed half-way
                connection.terminate()
        try:
            # InternalClientError: the server ended it while its user was cancelled, and the pool has it back already.
            with (
                anyio.move_on_after(CLEANUP_TIMEOUT_S, shield=True) as scope,
                contextlib.suppress(asyncpg.InternalClientError),
            ):
                await self._pool.release(connection)
            if scope.cancelled_caught:  # asyncpg would wait for it as long as the network swallows what it sends
                drop(connection)
        finally:
            self._tell()

    async def renew(self, **arguments: Any) -> None:
        """Let no connection that is open now be lent again; new ones are opened with these arguments, if there are any.

        At once where nobody has it: beside those that take their places the server might not let them be.
        """
        if arguments:
            self._pool.set_connect_args(**arguments)
        await self._pool.expire_connections()
        for _, connection in self._unused():
            connection.terminate()

    def close_unused(self, after_s: float, keep: int) -> int:
        """Close those that nobody has had for so long, but for the `keep` last used ones; return how many."""
        now = time.monotonic()
        unused = [connection for since, connection in self._unused()[keep:] if now - since >= after_s]
        for connection in unused:
            connection.terminate()
        return len(unused)

    def _unused(self) -> list[tuple[float, BatchConnection]]:
        """Return those that nobody has and since when, the last used one first."""
        unused = [
            (since, each)
            for each in self._connections
            if (since := each.marks.unused_since) is not None and not each.is_closed()
        ]
        return sorted(unused, key=lambda found: found[0], reverse=True)

    async def close(self) -> None:
        """Close all within bounded time, whatever the state of the network."""
        with anyio.move_on_after(CLEANUP_TIMEOUT_S, shield=True) as scope:
            await self._pool.close()
        if scope.cancelled_caught:
            self._pool.terminate()


async def _keep_session(_connection: object) -> None:
    """Skip the pool's reset, which costs a round trip: each batch's seal resets the session."""
