"""A lane: one task that runs batches for some partitions of one projection.

    batch   wake-up or timer -> window (SQL) -> plan (core) -> swap, handle, commit

What it remembers of its partitions is good only as long as every swap succeeds and no connection is lost; after any
doubt it forgets them all, and its runner loads them again from the checkpoints (protocol 3.8).
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from functools import partial
from typing import TYPE_CHECKING

import anyio

from reactive_orch.core.progress import Progress
from reactive_orch.errors import Deadlock, HandlerFailed, ProjectionFailed, Superseded, Unavailable
from reactive_orch.model.middleware import subject
from reactive_orch.model.reports import Struck
from reactive_orch.postgres import checkpoints
from reactive_orch.postgres.faults import is_of_code_alone
from reactive_orch.runtime.backoff import Pauses
from reactive_orch.runtime.cancellation import lasting_group, outlive
from reactive_orch.runtime.handling.answers import Answers
from reactive_orch.runtime.handling.aside import Aside, demand_room
from reactive_orch.runtime.handling.ear import Ear
from reactive_orch.runtime.handling.failures import Failures
from reactive_orch.runtime.handling.in_hand import InHand
from reactive_orch.runtime.handling.lane_windows import LaneWindows
from reactive_orch.runtime.handling.trials import Trials
from reactive_orch.runtime.wakeup import Wakeup

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from contextlib import AbstractContextManager

    from anyio.abc import TaskGroup

    from reactive_orch.core.pace import Pace
    from reactive_orch.core.progress import Batch
    from reactive_orch.incarnation import Incarnation
    from reactive_orch.model import Checkpoint, Partition, Swap, Window
    from reactive_orch.postgres.checkpoints import Batches
    from reactive_orch.postgres.connection import AnyConnection
    from reactive_orch.runtime.handling.ear import Group
    from reactive_orch.runtime.handling.scope import Scope
    from reactive_orch.runtime.reading.window_cache import Fetched, WindowCache

SAVE_EVERY_S = 5.0
"""Reading that found nothing is saved this often. After a death at most that much is read again."""

LOOK_S = 1.0
"""How long a trial waits to learn how far the log goes now. If it takes longer, the next one knows."""


class Lane:
    """Some partitions of one projection."""

    def __init__(self, scope: Scope, cache: WindowCache) -> None:
        """Start without partitions."""
        self._scope = scope
        self.progress = Progress(scope.config.batch_events, scope.follower.log.partitions, scope.database.incarnation)
        self.wakeup = Wakeup()
        self.in_hand = InHand(scope)
        self.answers = Answers(scope, self.progress, self.wakeup)
        self._leaving: set[Partition] = set()
        """Partitions of the batch in hand that are to be let go when it ends."""
        failures = Failures(scope)
        self.aside = Aside(scope, self.progress, self.in_hand, failures)
        self.trials = Trials(scope, self.progress, self.aside, partial(_try_next, self, scope))
        self.windows = LaneWindows(scope, self.progress, failures, cache)
        self.group: Group | None = None
        """Those with whom it handles fresh events, if its projection belongs to some."""
        self._pauses = Pauses(contended_most_s=1.0)
        self._saved_at = time.monotonic()

    @property
    def failing_since(self) -> float | None:
        """When the handler first failed at an event that this lane still has before it; None if it has none."""
        return self.aside.failures.since(self.progress.read_to)

    @property
    def remembers(self) -> bool:
        """Whether its memory is of the present incarnation of the database. If not, its next step forgets it."""
        return self.progress.incarnation == self._scope.database.incarnation

    def take(self, gained: Mapping[Partition, Checkpoint], incarnation: Incarnation) -> None:
        """Begin with partitions where their checkpoints stand, as read in this incarnation."""
        self.progress.take(gained, incarnation)
        self._scope.hooked.took(gained.keys())
        self.aside.look()
        self.wakeup.set()

    def release(self, lost: Collection[Partition]) -> tuple[Swap, ...]:
        """Let partitions go: at once those that no batch is working on, the others when it ends.

        Returns the swaps that save what had been read of those let go at once.
        """
        self._leaving.update(self.in_hand.partitions.intersection(lost))
        idle = self.progress.partitions.intersection(lost) - self.in_hand.partitions
        unsaved = self.progress.unsaved(idle) if self.remembers else ()
        _let_go(self._scope, self.progress, idle)
        return unsaved

    def hand_over(self, partition: Partition, other: Lane) -> None:
        """Give a partition to another lane. One in a batch is dropped when that ends, and loaded again."""
        if partition in self.in_hand.partitions:
            self._leaving.add(partition)
        else:
            self.progress.move([partition], other.progress)
            other.aside.look()
            other.wakeup.set()

    def rewound(self, epoch: int) -> None:
        """Forget what was loaded before this epoch. A batch in hand goes on: its swap, or the next, fails."""
        if any(row.epoch < epoch for row in self.progress.saved.values()) and not self.in_hand.partitions:
            self.invalidate()
            self.wakeup.set()

    def invalidate(self) -> None:
        """Drop everything remembered of the database: in doubt, the checkpoints know."""
        self._scope.hooked.lost(self.progress.partitions)
        self.progress.begin(self._scope.database.incarnation)
        self.aside.failures.alone = None
        self._leaving.clear()
        self._scope.changed()

    async def run(self) -> None:
        """Run batches for ever. Raises ProjectionFailed when an event has failed for good and that ends the worker."""
        subject.set(self._scope.subject)
        async with lasting_group() as tasks:
            while True:
                try:
                    await self._attempt(tasks)
                except asyncio.CancelledError as error:
                    outlive(error)
                    self._scope.interruptions.note("lane", error)
                    self._scope.watchers.emit(Struck(self._scope.subject))
                    self.invalidate()

    async def _attempt(self, tasks: TaskGroup) -> None:
        try:
            await self._step(tasks)
        except Superseded as error:
            self._scope.interruptions.note("lane", error)
            if isinstance(error, Deadlock):
                await self._scope.serial.deadlocked()
            await anyio.sleep(self._pauses.after_s(error))
            self.invalidate()  # only now: what is loaded before the pause is out of date after it
        except Unavailable as error:
            self._scope.interruptions.note("lane", error)
            self.invalidate()  # first: the runner deals nothing before all its lanes have forgotten
            await self._scope.database.admission.pause(self._pauses.after_s(error))
        except HandlerFailed as error:
            self.land()
            if not is_of_code_alone(error):
                await self._scope.database.renew()
            if self.aside.failures.alone is None:
                await self.aside.failures.narrow(error)
        except ProjectionFailed as error:
            self.land()
            await self._scope.halt(error, self.progress.incarnation)

    async def _step(self, tasks: TaskGroup) -> None:
        await _leave(self.group)
        await _linger(self.windows.pace)
        if not self.remembers:
            self.invalidate()
        if self._save_is_due():
            self._saved_at = time.monotonic()
            await self._save(self.progress.partitions)
        if self.answers:
            await self.answers.give(self._save)
        if (resting := self._scope.resting()) is not None:
            # What has failed in an outage, and were set aside after it, might be parked after all: it is tried again.
            self.aside.failures.alone = None
            pause_s = await self.trials.pause_s(resting)
            self._scope.idle()
            await self.wakeup.wait(min(pause_s, SAVE_EVERY_S))
            return
        if self.aside.due:
            await self.aside.step()
            self.land()
        await self.trials.opinions.step()
        window = self.windows.window()
        if window is None:
            await self._rest()
            return
        fetched = await self.windows.read(window)
        if fetched is None or not self.remembers or fetched.window.incarnation != self.progress.incarnation:
            return
        if fetched.events and self.group is not None and self.group.takes(fetched):
            await self._rest()  # the others have it in hand meanwhile
        elif fetched.events:
            await self._work_off(tasks, fetched)
        else:
            self.passed(fetched, self.plan(fetched))

    async def _work_off(self, tasks: TaskGroup, first: Fetched) -> None:
        """Handle what was read. Stay on this connection as long as the next window is there, or being read.

        The connection is borrowed here and not with the window: that may have been read ahead, or by another lane.
        """
        fetched: Fetched | None = first
        scope = self._scope
        async with (
            scope.serial.lane(),
            scope.database.processing(self.progress.incarnation, first.events[0].global_position) as connection,
            checkpoints.Batches(connection, scope.replica_set, scope.subscription) as batches,
        ):
            while fetched is not None and _may_handle(fetched, self, scope):
                self.windows.read_ahead(tasks, fetched)
                if not await scope.serial.turn(batches) or not _may_handle(fetched, self, scope):
                    return
                batch = self.plan(fetched)  # only now: partitions may have gone meanwhile
                if batch.events:
                    batch = await self.handle(batches, connection, fetched.window, batch)
                self.passed(fetched, batch)
                if batch.events and self.in_hand.waiting is not None:
                    demand_room(self._scope, self.in_hand.waiting)
                fetched = await self.windows.ahead() if batches.begun else None

    def _goes_on(self) -> bool:
        # The coming window already got its connection, so nobody goes without one if this is kept.
        return (
            self.windows.coming
            and not self._save_is_due()
            and not (self.aside.due or self.answers or self._scope.serial.on)
        )

    def plan(self, fetched: Fetched) -> Batch:
        """Return what is to be handled at once of a window that was read."""
        return self._scope.suspects.narrowed(self.progress.plan(fetched.window, fetched.events, fetched.end))

    def passed(self, fetched: Fetched, batch: Batch) -> None:
        """Note that a window, or as much of it as this batch has, is behind."""
        end = fetched.end if batch.cut_at is None else batch.cut_at
        self.progress.passed(fetched.window, end, batch)
        self.aside.failures.passed()
        self.land()

    async def _rest(self) -> None:
        settled = self._scope.follower.settled_in(self.progress.incarnation)
        if settled is not None and not self.aside.retrying:  # what is tried again may be what has ended a process
            await self.in_hand.markers.forget(self.progress.partitions)
        self._scope.idle()
        save_in_s = SAVE_EVERY_S if self.progress.has_unsaved else None
        pauses_s = [pause_s for pause_s in (save_in_s, self.aside.due_in_s) if pause_s is not None]
        # Until what it passes over is to be saved, too, a lane may rest on; whoever waits for an answer wakes it.
        with _told(self, self._scope, rests_on=save_in_s is not None and not self.answers):
            await self.wakeup.wait(min(pauses_s, default=None))
        if settled is not None:  # up to here nothing has waited
            self.in_hand.oldest_at = time.time()

    async def handle(self, batches: Batches, connection: AnyConnection, window: Window, batch: Batch) -> Batch:
        """Handle a batch, or as much of it as its time allows; return what has been committed."""
        try:
            self._scope.suspects.demand_unhurt(batch)
            done = await self.in_hand.handle(batches, connection, batch, self._goes_on)
        except HandlerFailed as error:
            self.aside.failures.failed(window, batch, error, self.progress.read_to)
            raise
        full = len(batch.events) >= self.windows.limit
        self.windows.pace.committed(len(done.events), len(batch.events), swap_s=batches.swap_s, full=full)
        self.progress.batch_events = self.windows.pace.events
        self.aside.failures.committed()
        self._pauses.reset()
        if self._scope.suspects.concern(done.events):
            behind = self._scope.suspects.passed(len(done.events), window.partitions)
            await self.in_hand.markers.forget(behind)
        return done

    def land(self) -> None:
        """Let the partitions go that were to go when their batch ended."""
        if self._leaving:
            _let_go(self._scope, self.progress, self._leaving & self.progress.partitions)
            self._leaving.clear()
            self._scope.changed()

    def _save_is_due(self) -> bool:
        return time.monotonic() - self._saved_at >= SAVE_EVERY_S

    async def _save(self, partitions: Collection[Partition]) -> None:
        swaps, incarnation = self.progress.unsaved(partitions), self.progress.incarnation
        with self.in_hand.moving(swaps):
            await self._scope.save(swaps, incarnation)
            if incarnation == self.progress.incarnation:
                self.progress.swapped(swaps)
        self.land()


async def _linger(pace: Pace) -> None:
    """Wait, if that is due, so that more events share a batch."""
    if pace.linger_s:
        await anyio.sleep(pace.linger_s)
        pace.linger_s = 0.0


async def _leave(group: Group | None) -> None:
    """Have a lane back from those with whom it handles fresh events."""
    if group is not None:
        await group.leave()


def _told(lane: Lane, scope: Scope, *, rests_on: bool) -> AbstractContextManager[None]:
    """Let the lane learn of more events. Without partitions an advance is of no use.

    But while nothing is known of the log, its first advance says that it is.
    """

    def pass_over(fetched: Fetched) -> None:
        lane.passed(fetched, lane.plan(fetched))
        scope.idle()

    if lane.progress.saved:
        passing = pass_over if rests_on else None
        ear = Ear(lane.progress.read_to.keys(), lane.windows, lane.wakeup, passing, lane.group)
        return scope.follower.waiters.told(ear)
    if scope.follower.settled is None:
        scope.follower.call(lane.wakeup)
    return contextlib.nullcontext()


def _let_go(scope: Scope, progress: Progress, partitions: Collection[Partition]) -> None:
    progress.drop(partitions)
    scope.hooked.lost(partitions)


def _may_handle(fetched: Fetched, lane: Lane, scope: Scope) -> bool:
    """Tell whether a batch of a window may begin: it is of the present incarnation, and the projection runs."""
    of_present = fetched.window.incarnation == lane.progress.incarnation and lane.remembers
    return of_present and scope.resting() is None


async def _try_next(lane: Lane, scope: Scope) -> bool:
    """Handle the next event, alone, of a suspended projection (protocol 7.8); return whether that has succeeded.

    One that fails is set aside; those of failing keys are passed.
    """
    scope.outage.over()  # what has failed before is known
    await _look(lane, scope)
    handled = lane.in_hand.events_handled
    while lane.remembers and handled == lane.in_hand.events_handled and (window := lane.windows.window()) is not None:
        fetched = await lane.windows.read(window)
        if fetched is None or fetched.window.incarnation != lane.progress.incarnation:
            return False
        try:
            await _handle_first(lane, scope, fetched)
        except HandlerFailed:
            lane.land()
            await scope.database.renew()
            await lane.aside.step()
            lane.land()
            return False
    return handled < lane.in_hand.events_handled


async def _look(lane: Lane, scope: Scope) -> None:
    """Wait until the end of the log is known as it is now, if that is soon: nobody looks for lanes that rest."""
    began = time.monotonic()
    with anyio.move_on_after(LOOK_S):
        while scope.follower.settled_since(began) is None:
            scope.follower.look(lane.wakeup)
            await lane.wakeup.wait(LOOK_S)


async def _handle_first(lane: Lane, scope: Scope, fetched: Fetched) -> None:
    batch = lane.plan(fetched)
    if batch.events:
        async with (
            scope.database.processing(lane.progress.incarnation, batch.events[0].global_position) as connection,
            checkpoints.Batches(connection, scope.replica_set, scope.subscription) as batches,
        ):
            batch = await lane.handle(batches, connection, fetched.window, batch.beginning(1))
    lane.passed(fetched, batch)
