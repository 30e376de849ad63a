"""One process's side of one database: its connections, its view of the log, and the workers that live on them.

However many replica sets and projections a process runs, it has one membership connection and one tail.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import socket
from typing import TYPE_CHECKING, Self

import anyio

from reactive_orch.errors import ConfigError, Superseded, Unavailable
from reactive_orch.postgres import log, migrations
from reactive_orch.postgres.database import Database
from reactive_orch.postgres.session import Hearers, Session
from reactive_orch.runtime.backoff import Backoff
from reactive_orch.runtime.tail import Tail

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from types import TracebackType

    from reactive_orch.config import Config

_logger = logging.getLogger("reactive_orch")


class Node:
    """What the workers of a process share. An async context manager.

    Entering raises ConfigError (schema missing, unsafe log), Standby or Unavailable; leaving the block is when a
    failure of its own background tasks surfaces, in an exception group.
    """

    def __init__(self, config: Config) -> None:
        """Prepare; entering the context connects."""
        self.config = config
        self.label = f"{socket.gethostname().split('.')[0][:20]}:{os.getpid()}:{secrets.token_hex(3)}"
        self.database = Database(
            config.database_url,
            label=self.label,
            connections_max=config.connections_max,
            handler_timeout_s=config.handler_timeout_s,
        )
        hearers = Hearers(events=self._ring, generation=self._generation, look=self._look)
        self.session = Session(self.database, config.heartbeat_s, hearers)
        self.tail = Tail(self.database, lambda: self.session.connected)
        self.partitions_total = 0
        self._wakes: dict[str, list[Callable[[], None]]] = {}
        self._stack = contextlib.AsyncExitStack()

    def _ring(self) -> None:
        self.tail.bell.set()

    def _generation(self, replica_set: str) -> None:
        for wake in self._wakes.get(replica_set, ()):
            wake()

    def _look(self) -> None:
        self.tail.wake()
        for replica_set in self._wakes:
            self._generation(replica_set)

    @contextlib.contextmanager
    def attached(self, replica_set: str, wake: Callable[[], None]) -> Iterator[None]:
        """Call `wake` whenever the replica set may have changed."""
        wakes = self._wakes.setdefault(replica_set, [])
        wakes.append(wake)
        try:
            yield
        finally:
            wakes.remove(wake)

    async def __aenter__(self) -> Self:
        """Connect, check schema and log, start following both."""
        async with contextlib.AsyncExitStack() as stack:
            await self.database.open()
            stack.push_async_callback(self.database.close)
            async with self.database.coordination() as connection:
                await migrations.check(connection)
                self.partitions_total = (await log.check(connection)).partitions
            await self.session.open()
            stack.push_async_callback(self.session.close)
            self.database.on_lost.append(self._look)
            await stack.enter_async_context(self._background())
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        """Stop following, close the connections."""
        return await self._stack.__aexit__(kind, error, trace)

    @contextlib.asynccontextmanager
    async def _background(self) -> AsyncIterator[None]:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._keep_session)
            tasks.start_soon(self.tail.run)
            yield
            tasks.cancel_scope.cancel()

    async def _keep_session(self) -> None:
        while True:
            try:
                await self.session.beat_until_lost()
            except Unavailable as error:
                _logger.warning("membership connection lost: %s", error)
            await self._reopen()
            _logger.info("membership connection is back")

    async def _reopen(self) -> None:
        backoff = Backoff(0.05, 5.0)
        while True:
            await anyio.sleep(backoff.next_s())
            # ConfigError: a half-restored database, perhaps; if it stays, the tail says so and stops the process.
            with contextlib.suppress(Unavailable, Superseded, ConfigError):
                await self.session.reopen()
                return
