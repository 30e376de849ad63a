"""What one lane says it has in hand, before it calls a handler that may end the process (protocol 7.11).

Only while a partition is suspect, and when the first event of a failing key is tried again: batches without either put
no marker. A marker goes with its batch: by the commit, or taken back when the batch has failed and the process lives.
"""

from __future__ import annotations

import contextlib
import itertools
from functools import partial
from typing import TYPE_CHECKING

import anyio

from reactive_orch.errors import ReactiveOrchError, Superseded, Unavailable
from reactive_orch.postgres.pool import CLEANUP_TIMEOUT_S
from reactive_orch.postgres.suspicions import Suspicions

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Sequence

    from reactive_orch.model import Event, Partition
    from reactive_orch.model.handlers import EventHandler
    from reactive_orch.postgres.checkpoints import Batches
    from reactive_orch.postgres.connection import AnyConnection
    from reactive_orch.runtime.handling.scope import Scope

_LANES = itertools.count()


class NotMarked(Exception):
    """No marker could be put; the cause says why."""


class Markers:
    """Those of one lane: one at a time."""

    def __init__(self, scope: Scope) -> None:
        """Put none yet."""
        self.on = False
        """Whether one is put before each call."""
        self._database, self._suspects = scope.database, scope.suspects
        self._own = (scope.node.label, next(_LANES))
        self._suspicions = Suspicions(scope.replica_set, scope.subscription)
        self._is_put = False

    @contextlib.asynccontextmanager
    async def kept(self, *, on: bool) -> AsyncIterator[None]:
        """Put a marker before each call in the block, if `on`; none is left after it."""
        self.on = on
        try:
            yield
            self._is_put = False  # gone with the commit
        finally:
            self.on = False
            await self._take_back()

    @contextlib.asynccontextmanager
    async def gone_with(self, batches: Batches, connection: AnyConnection) -> AsyncIterator[None]:
        """Let the marker go with the batch of the block: if that fails, while the checkpoints are still held."""
        if self.on:
            batches.write_last(partial(self._suspicions.erase, connection, *self._own))
        try:
            yield
        except BaseException:
            await self._take_back()
            raise

    def around(self, handler: EventHandler) -> EventHandler:
        """Return a handler of single events that does the same, after a marker was put for the event."""

        async def marked(event: Event, tx: AnyConnection) -> None:
            try:
                await self.put((event,))
            except ReactiveOrchError as error:
                raise NotMarked from error
            await handler(event, tx)

        return marked

    async def put(self, events: Sequence[Event]) -> None:
        """Say that these events, and no others, are in hand. Raises Superseded, Unavailable or ConfigError."""
        self._is_put = True
        async with self._database.coordination() as connection:
            await self._suspicions.put(connection, *self._own, events)

    async def forget(self, partitions: Collection[Partition]) -> None:
        """Let those of these partitions that are suspect be so no more: all is behind us that may have been in hand."""
        if partitions := self._suspects.found.keys() & partitions:
            async with self._database.coordination() as connection:
                await self._suspicions.forget(connection, partitions)
            self._suspects.forget(partitions)

    async def _take_back(self) -> None:
        if not self._is_put:
            return
        self._is_put = False
        # If it cannot be taken back, it says nothing as long as this process is a member.
        with (
            anyio.move_on_after(CLEANUP_TIMEOUT_S, shield=True),
            contextlib.suppress(Superseded, Unavailable),
        ):
            async with self._database.coordination() as connection:
                await self._suspicions.erase(connection, *self._own)
