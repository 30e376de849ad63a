"""A lane: one task that runs batches for some partitions of one projection.

    batch   wake-up or timer -> window (SQL) -> plan (core) -> swap, handle, commit

What it remembers of its partitions is good only as long as every swap succeeds and no connection is lost; after any
doubt it forgets them all, and its runner loads them again from the checkpoints (protocol 3.8).
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING

import anyio

from reactive_orch.core.attempts import Attempts
from reactive_orch.core.pace import Pace
from reactive_orch.core.progress import Progress
from reactive_orch.errors import HandlerFailed, ProjectionFailed, Superseded, Unavailable, Unreadable, named
from reactive_orch.postgres import checkpoints
from reactive_orch.postgres.connection import drop
from reactive_orch.postgres.faults import took_too_long
from reactive_orch.runtime.backoff import Backoff
from reactive_orch.runtime.calling import BATCH_S, Calling
from reactive_orch.runtime.cancellation import lasting_group, outlive
from reactive_orch.runtime.prefetch import Prefetcher
from reactive_orch.runtime.setbacks import Setbacks
from reactive_orch.runtime.wakeup import Wakeup
from reactive_orch.telemetry.handling import Handling

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from anyio.abc import TaskGroup

    from reactive_orch.core.progress import Batch
    from reactive_orch.incarnation import Incarnation
    from reactive_orch.model import Checkpoint, Event, Partition, Swap, Window
    from reactive_orch.postgres.checkpoints import Batches
    from reactive_orch.postgres.database import AnyConnection
    from reactive_orch.runtime.scope import Scope
    from reactive_orch.runtime.window_cache import Fetched, WindowCache

SAVE_EVERY_S = 5.0
"""How long reading that found nothing may stay unsaved: that much is read again after a death, nothing more."""

SWAP_SLOW_S, GATHER_MOST_S = 0.005, 0.100
"""After a swap slower than the first, and no full batch, a lane waits as long as the swap took (at most the second), so
that more events share the next one. Swaps get slow while somebody's old snapshot keeps the dead versions of the
checkpoints: fewer, larger batches then cost less and leave fewer of them behind."""

_logger = logging.getLogger("reactive_orch")


class Lane:
    """Some partitions of one projection."""

    def __init__(self, scope: Scope, cache: WindowCache) -> None:
        """Start without partitions."""
        self._scope = scope
        self.progress = Progress(scope.config.batch_events, scope.partitions_total, scope.database.incarnation)
        self.wakeup = Wakeup()
        self.in_flight: frozenset[Partition] = frozenset()
        self.events_handled = 0
        self._failing_since: float | None = None
        self._called_at: float | None = None
        """Since when handlers have been running for a batch, by the monotonic clock."""
        self.handling = Handling(scope.replica_set, scope.projection.name, scope.generation)
        self._tx: AnyConnection | None = None
        """Of the batch that is being handled."""
        self._leaving: set[Partition] = set()
        around = self.handling.traced if scope.config.trace_events else None
        self._calling = Calling(scope.projection, scope.config.handler_timeout_s, around)
        self._attempts = Attempts()
        self._pace = Pace(scope.config.batch_events)
        self._saved_at = time.monotonic()
        self._retry = Backoff(0.1, 30.0)
        self._prefetcher = Prefetcher(scope.database, scope.projection.filter, cache, self.handling.read)
        self._reconnect = Backoff(0.05, 5.0)
        self._contended = Backoff(0.001, 1.0)
        self._gather_s = 0.0
        self._setbacks = Setbacks(scope)

    @property
    def failing_since(self) -> float | None:
        """Since when a handler has failed without a success, at an event that is still ahead of this lane."""
        return self._failing_since if self._attempts.stands(self.progress.read_to) else None

    def handler_runs(self, now: float) -> bool:
        """Tell whether handlers are at work, and not for longer than they may be."""
        most_s = self._scope.config.handler_timeout_s + BATCH_S
        return self._called_at is not None and now - self._called_at <= most_s

    @property
    def remembers(self) -> bool:
        """Whether what it knows is of the present incarnation of the database: else it is about to forget it."""
        return self.progress.incarnation == self._scope.database.incarnation

    def take(self, gained: Mapping[Partition, Checkpoint], incarnation: Incarnation) -> None:
        """Begin with partitions where their checkpoints stand, as read in this incarnation."""
        self.progress.take(gained, incarnation)
        self.wakeup.set()

    def release(self, lost: Collection[Partition]) -> tuple[Swap, ...]:
        """Let partitions go: at once those that no batch is working on, the others when it ends.

        Returns the swaps that save what had been read of the former.
        """
        self._leaving.update(self.in_flight.intersection(lost))
        idle = self.progress.partitions.intersection(lost) - self.in_flight
        unsaved = self.progress.unsaved(idle) if self.remembers else ()
        self.progress.drop(idle)
        return unsaved

    def hand_over(self, partition: Partition, other: Lane) -> None:
        """Let another lane go on with a partition: as it stands, or loaded anew when the batch that has it ends."""
        if partition in self.in_flight:
            self._leaving.add(partition)
        else:
            self.progress.move([partition], other.progress)
            other.wakeup.set()

    def rewound(self, epoch: int) -> None:
        """Forget what was loaded before this epoch, if anything was; a batch in flight finds out by itself."""
        if any(row.epoch < epoch for row in self.progress.saved.values()) and not self.in_flight:
            self.invalidate()
            self.wakeup.set()

    def cut(self) -> None:
        """End the transaction of the batch in hand, whatever its handler is doing: it must not keep rows for others."""
        if self._tx is not None:
            drop(self._tx)

    def invalidate(self) -> None:
        """Drop everything remembered of the database: in doubt, the checkpoints know."""
        self.progress.begin(self._scope.database.incarnation)
        self._leaving.clear()
        self._scope.changed()

    async def run(self) -> None:
        """Run batches for ever. Raises ProjectionFailed when a handler has failed for good."""
        async with lasting_group() as tasks:
            while True:
                try:
                    await self._attempt(tasks)
                except asyncio.CancelledError as error:
                    outlive(error)
                    self._scope.note_strike(error)
                    self.invalidate()

    async def _attempt(self, tasks: TaskGroup) -> None:
        try:
            await self._step(tasks)
        except Superseded as error:
            self._scope.interruptions.note("lane", error)
            await anyio.sleep(self._contended.next_s())
            self.invalidate()  # now: what is loaded before the pause is out of date after it, and loses again
        except Unavailable as error:
            self._scope.interruptions.note("lane", error)
            self.invalidate()  # first: the runner deals nothing before all its lanes have forgotten
            await anyio.sleep(self._reconnect.next_s())
        except HandlerFailed as error:
            await self._after_failure(error)

    async def _step(self, tasks: TaskGroup) -> None:
        if self._gather_s:
            await anyio.sleep(self._gather_s)
            self._gather_s = 0.0
        if not self.remembers:
            self.invalidate()
        if self._save_is_due():
            await self._save()
        window = self._window()
        if window is None:
            await self._rest()
            return
        fetched = await self._read(window)
        if fetched is None or not self.remembers or fetched.window.incarnation != self.progress.incarnation:
            return
        if fetched.events:
            await self._work_off(tasks, fetched)
        else:
            self._passed(fetched, self._plan(fetched))

    async def _read(self, window: Window) -> Fetched | None:
        """Return the window, or None when a time-out cut it off at the server: then narrower ones are to be read."""
        try:
            fetched = await self._prefetcher.read(window)
        except Unreadable as error:
            self._failing_since = self.failing_since or time.monotonic()
            self._attempts.unreadable(window.low, error.position, error.partition)
            self.handling.unreadable(error)
            raise
        except (Superseded, Unavailable) as error:
            if not took_too_long(error):
                raise
            await self._cut_off(window, error)
            return None
        settled = self._scope.follower.settled_in(window.incarnation)
        if settled is not None and not fetched.events and self.progress.widest(window):
            return await self._prefetcher.past_gap(fetched, settled)
        return fetched

    async def _cut_off(self, window: Window, error: Superseded | Unavailable) -> None:
        self.progress.narrow(window)
        self._scope.say_cut(window, error)
        if isinstance(error, Unavailable):
            raise error
        # Reading puts nothing in doubt: what was read before is saved in its turn, or it would begin anew for ever.
        self._scope.interruptions.note("lane", error)
        await anyio.sleep(self._contended.next_s())

    def _window(self) -> Window | None:
        settled = self._scope.follower.settled_in(self.progress.incarnation)
        return None if settled is None else self.progress.window(settled, self._limit())

    async def _work_off(self, tasks: TaskGroup, first: Fetched) -> None:
        """Handle what was read and, on the same connection, what follows as long as it is there at once."""
        fetched: Fetched | None = first
        scope = self._scope
        async with (
            scope.database.processing(self.progress.incarnation) as connection,
            checkpoints.Batches(connection, scope.replica_set, scope.projection.name) as batches,
        ):
            while fetched is not None and self.remembers:
                self._read_ahead(tasks, fetched)
                batch = self._plan(fetched)
                if batch.events:
                    batch = await self._handle(batches, connection, batch)
                self._passed(fetched, batch)
                window = self._window() if batches.begun else None
                fetched = None if window is None else await self._prefetcher.ahead(window)

    def _goes_on(self) -> bool:
        # What is coming has got a connection in its turn, so there are enough for all: this one may be kept.
        return self._prefetcher.coming and not self._save_is_due()

    def _plan(self, fetched: Fetched) -> Batch:
        return self.progress.plan(fetched.window, fetched.events, fetched.end)

    def _passed(self, fetched: Fetched, batch: Batch) -> None:
        end = fetched.end if batch.cut_at is None else batch.cut_at
        self.progress.passed(fetched.window, end, batch)
        self._failing_since = None
        self._land()

    def _read_ahead(self, tasks: TaskGroup, fetched: Fetched) -> None:
        settled = self._scope.follower.settled_in(self.progress.incarnation)
        if fetched.events and settled is not None and not self._attempts.limits(fetched.end):
            following = self.progress.following(fetched.window, fetched.end, settled)
            if following is not None:
                self._prefetcher.read_ahead(tasks, following)

    async def _rest(self) -> None:
        # Without partitions an advance is of no use to it; each would wake it, and have the follower look again.
        if self.progress.partitions or self._scope.follower.settled is None:
            self._scope.follower.call(self.wakeup)
        self._scope.rests()
        await self.wakeup.wait(SAVE_EVERY_S if self.progress.unsaved(self.progress.partitions) else None)

    def _limit(self) -> int:
        return self._attempts.limit_of(self.progress.low or 0, self._pace.events)

    async def _handle(self, batches: Batches, connection: AnyConnection, batch: Batch) -> Batch:
        """Handle a batch, or as much of it as its time allows; return what has been committed."""
        self.in_flight, self._tx = frozenset(swap.partition for swap in batch.swaps), connection
        done = batch
        try:
            with self.handling.batch(batch.events) as ended_after, self._setbacks.strikes():
                async with batches.batch(batch.swaps, lambda: done is batch and self._goes_on()):
                    handled = await self._call(batch.events, connection)
                    if handled < len(batch.events):
                        done = batch.beginning(handled)
                        batches.stop_short(done.swaps)
                        ended_after(handled)
        except HandlerFailed as error:
            self._failing_since = self.failing_since or time.monotonic()
            self._attempts.failed(batch, error.index)
            raise
        finally:
            self.in_flight, self._tx = frozenset(), None
        self._committed(done, batch, batches.swap_s)
        return done

    def _committed(self, done: Batch, batch: Batch, swap_s: float) -> None:
        self.events_handled += len(done.events)
        if swap_s > SWAP_SLOW_S and len(batch.events) < self._limit():
            self._gather_s = min(swap_s, GATHER_MOST_S)
        self._pace.committed(len(done.events), len(batch.events))
        self.progress.batch_events = self._pace.events
        self._attempts.succeeded()
        self._retry.reset()
        self._contended.reset()
        self._reconnect.reset()
        self._setbacks.over()

    async def _call(self, events: Sequence[Event], tx: AnyConnection) -> int:
        self._called_at = began = time.monotonic()
        try:
            return await self._calling(events, tx)
        except HandlerFailed as error:
            await self._setbacks.tell(error, tx, time.monotonic() - began)
            raise
        finally:
            self._called_at = None

    async def _after_failure(self, error: HandlerFailed) -> None:
        self._land()
        if self._attempts.count > self._scope.config.retries:
            msg = (
                f"projection {self._scope.projection.name!r} failed at event position {self._attempts.until} "
                f"in {self._attempts.count} attempts: {error}"
            )
            raise ProjectionFailed(msg) from error.__cause__
        _logger.warning(
            "projection %s: batch rolled back at or before position %d, trying again: %s",
            self._scope.projection.name,
            self._attempts.until,
            named(error),
            extra={
                "event": "retrying",
                "replica_set": self._scope.replica_set,
                "projection": self._scope.projection.name,
            },
        )
        await self._scope.database.renew()
        await anyio.sleep(self._retry.next_s())

    def _land(self) -> None:
        if self._leaving:
            self.progress.drop(self._leaving)
            self._leaving.clear()
            self._scope.changed()

    def _save_is_due(self) -> bool:
        return time.monotonic() - self._saved_at >= SAVE_EVERY_S

    async def _save(self) -> None:
        self._saved_at = time.monotonic()
        swaps, incarnation = self.progress.unsaved(self.progress.partitions), self.progress.incarnation
        self.in_flight = frozenset(swap.partition for swap in swaps)
        try:
            await self._scope.save(swaps, incarnation)
            if incarnation == self.progress.incarnation:
                self.progress.swapped(swaps)
        finally:
            self.in_flight = frozenset()
        self._land()
