"""Eyes: a connection that is made anew when it is lost, and what was notified on it.

They look when a replica set has changed, as workers do, and now and then besides: how far workers are they say with
their heartbeats. So they need not hear of appends: they never arm the bell, and writers ring no more often.
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

import anyio

from reactive_orch.errors import ReactiveOrchError
from reactive_orch.looking.locks import explained
from reactive_orch.postgres import membership, migrations
from reactive_orch.postgres.channels import GENERATIONS_CHANNEL
from reactive_orch.postgres.faults import translated
from reactive_orch.postgres.projections import demand_replica_set

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from contextlib import AbstractAsyncContextManager

    from reactive_orch.postgres.connection import AnyConnection

LOOK_EVERY_S = 2.0
"""Also without a notification."""
COST_MAX = 0.05
"""Of the time, for looks: where one takes long, the next one comes later."""
LOOK_AT_LEAST_EVERY_S = 30.0
"""However long one takes."""

_Seen = TypeVar("_Seen")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight(Generic[_Seen]):
    """How eyes look, and at what."""

    connect: Callable[[bool], AbstractAsyncContextManager[AnyConnection]]
    """Called with whether it has never connected."""
    see: Callable[[AnyConnection], Awaitable[_Seen]]
    replica_set: str | None = None
    """The one whose changes matter; None for all."""
    gap_s: float = 1.0
    """From one look to the next, however much is notified."""
    rest_most_s: float = LOOK_AT_LEAST_EVERY_S
    """However long one takes: it may have waited for a lock."""


class Eyes(Generic[_Seen]):
    """Those of one who watches."""

    def __init__(self, sight: Sight[_Seen]) -> None:
        """Connect at the first look."""
        self._sight = sight
        self._stack = contextlib.AsyncExitStack()
        self._found = False
        """It has connected once, and there was such a replica set."""
        self._connection: AnyConnection | None = None
        self._notified = anyio.Event()
        self._began_s = self._took_s = 0.0

    async def look(self) -> _Seen:
        """Look once. Raises ReactiveOrchError: the next look connects anew."""
        self._notified, self._began_s, self._took_s = anyio.Event(), time.monotonic(), 0.0
        try:
            with translated():
                connection = self._connection or await self._connect()
                seen = await self._timed(connection)
        except ReactiveOrchError as error:
            told = await explained(self._connection, error) if self._connection else error
            await self.close()
            raise told  # noqa: B904 - it may be the same, and has its cause
        except BaseException:
            await self.close()
            raise
        return seen

    async def _timed(self, connection: AnyConnection) -> _Seen:
        begun_s = time.monotonic()
        try:
            return await self._sight.see(connection)
        finally:  # also of one that fails: it has cost as much
            self._took_s = time.monotonic() - begun_s

    async def _connect(self) -> AnyConnection:
        sight = self._sight
        connection = self._connection = await self._stack.enter_async_context(sight.connect(not self._found))
        await migrations.check(connection)
        if sight.replica_set is not None and not self._found:
            demand_replica_set(sight.replica_set, await membership.replica_sets(connection))
        self._found = True
        connection.add_termination_listener(lambda _: self._notified.set())
        await connection.add_listener(GENERATIONS_CHANNEL, lambda *told: self._heed(str(told[-1])))
        return connection

    def _heed(self, replica_set: str) -> None:
        if self._sight.replica_set in {None, replica_set}:
            self._notified.set()

    async def rest(self) -> None:
        """Wait until it is time for the next look."""
        cost_s = min(self._took_s / COST_MAX, self._sight.rest_most_s)
        with anyio.move_on_after(max(LOOK_EVERY_S, cost_s)):
            await self._notified.wait()
        await anyio.sleep(max(self._began_s + max(self._sight.gap_s, cost_s) - time.monotonic(), 0.0))

    async def close(self) -> None:
        """End the connection, without a word to the server: that may be away."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.terminate()
        await self._stack.aclose()
