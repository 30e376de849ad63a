"""The wait for checkpoints that a worker should hold, and that others still have in a batch.

One statement for all runners of a process. It waits for one row, which wakes it in a millisecond, and at the end of a
short slice tells which of the others are free as well. So nobody waits longer because many wait, and one connection is
enough for them.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

import anyio

from reactive_orch.errors import ConfigError, Superseded, Unavailable
from reactive_orch.postgres import checkpoints
from reactive_orch.runtime.backoff import Backoff
from reactive_orch.runtime.interruptions import passing_over
from reactive_orch.runtime.wakeup import Wakeup

if TYPE_CHECKING:
    from collections.abc import Collection

    from reactive_orch.model import Partition, Subscription
    from reactive_orch.model.reports import Emit
    from reactive_orch.postgres.database import Database

QUICK_S = 0.02
"""An answer that names nobody and comes within this time has not waited: to ask again at once would be a busy loop."""


class _Wait(NamedTuple):
    replica_set: str
    subscription: Subscription
    partitions: frozenset[Partition]


class RowWait:
    """Who waits for which rows."""

    def __init__(self, database: Database, emit: Emit) -> None:
        """Start with nobody."""
        self._emit = emit
        self._database = database
        self._waits: dict[Wakeup, _Wait] = {}
        self._told: dict[Wakeup, _Wait] = {}
        self._more = Wakeup()
        self._pause = Backoff(0.002, 0.25)
        self._in_vain = False

    def set(
        self, wakeup: Wakeup, replica_set: str, subscription: Subscription, partitions: frozenset[Partition]
    ) -> None:
        """Set the wake-up once, when any of these rows is free; without partitions: not any more."""
        told = self._told.pop(wakeup, None)
        if not partitions:
            self._waits.pop(wakeup, None)
            return
        self._waits[wakeup] = wait = _Wait(replica_set, subscription, partitions)
        self._in_vain |= wait == told  # it was free, and could not be loaded
        self._more.set()

    async def run(self) -> None:
        """Wait for ever."""
        while True:
            while not self._waits:
                await self._more.wait()
            if self._in_vain:
                self._in_vain = False
                await anyio.sleep(self._pause.next_s())
            else:
                self._pause.reset()
            if self._waits:  # still, after the pause
                self._in_vain = True  # unless it is answered
                with passing_over(self._emit, "share", Unavailable, Superseded, ConfigError):
                    await self._slice(list(self._waits.items()))

    async def _slice(self, waits: Collection[tuple[Wakeup, _Wait]]) -> None:
        began = time.monotonic()
        rows = [
            (n, wait.replica_set, wait.subscription, p)
            for n, (_, wait) in enumerate(waits)
            for p in sorted(wait.partitions)
        ]
        async with self._database.coordination() as connection:
            free = await checkpoints.await_free(connection, rows)
        self._in_vain = not free and time.monotonic() - began < QUICK_S
        for n, (wakeup, wait) in enumerate(waits):
            if n in free and self._waits.get(wakeup) == wait:
                self._told[wakeup] = self._waits.pop(wakeup)
                wakeup.set()
