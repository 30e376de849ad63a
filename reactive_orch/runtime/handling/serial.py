"""Batches of one projection that go one at a time, over all its lanes and workers: for a while after a deadlock.

Handlers that write the same rows in different orders deadlock, and a deadlock stops all of them until the server looks
(`deadlock_timeout`, 1 s). One at a time they cannot. Nothing relies on it: after a long wait a lane goes on without.
"""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

import anyio

from reactive_orch.errors import Superseded, Unavailable
from reactive_orch.model import Subscription
from reactive_orch.model.reports import Serialized
from reactive_orch.postgres import projections

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from reactive_orch.model.reports import Emit, Subject
    from reactive_orch.postgres.checkpoints import Batches
    from reactive_orch.postgres.database import Database
    from reactive_orch.runtime.interruptions import Interruptions

PATIENCE_S = 30.0
"""After waiting in vain for so long, a lane takes whoever has the turn to be frozen, and goes on without."""


class Serial:
    """The turns of one projection's lanes on one worker."""

    def __init__(self, database: Database, subject: Subject, interruptions: Interruptions, emit: Emit) -> None:
        """Let every lane run as it likes."""
        self._database, self._subject = database, subject
        self._interruptions, self._emit = interruptions, emit
        self._until = 0.0
        self._waiting_since: float | None = None
        self._one = anyio.Lock()

    @property
    def on(self) -> bool:
        """Whether batches go one at a time now."""
        return time.monotonic() < self._until

    def begin(self, for_s: float) -> None:
        """Let them go one at a time for so many seconds, 0 for no more."""
        if not self.on:
            self._waiting_since = None
        self._until = time.monotonic() + for_s

    async def deadlocked(self) -> None:
        """Let batches go one at a time, on all workers, since handlers have met a deadlock."""
        replica_set, *of = self._subject
        try:
            async with self._database.coordination() as connection:
                left_s, begins = await projections.serialize(connection, replica_set, Subscription(*of))
        except (Unavailable, Superseded) as unrecorded:  # the next deadlock tries again
            self._interruptions.note("lane", unrecorded)
            return
        self.begin(left_s)
        if begins:
            self._emit(Serialized(self._subject, left_s))

    @contextlib.asynccontextmanager
    async def lane(self) -> AsyncIterator[None]:
        """Let one lane of this worker at a time wait with a connection: they are few, and others need them."""
        if not self.on:
            yield
            return
        async with self._one:
            yield

    async def turn(self, batches: Batches) -> bool:
        """Wait for the next batch's turn, for a slice; False if it has not come. True at once if none is needed."""
        if not self.on:
            return True
        if self._lost_patience():
            self._waiting_since = None  # one batch without its turn: whoever has it may be frozen
            return True
        self._waiting_since = self._waiting_since or time.monotonic()
        if not await batches.await_others():
            return False
        self._waiting_since = None
        return True

    def _lost_patience(self) -> bool:
        return self._waiting_since is not None and time.monotonic() - self._waiting_since > PATIENCE_S
