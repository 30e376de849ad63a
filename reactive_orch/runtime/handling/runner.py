"""A runner: one subscription on one worker, its assigned partitions dealt to lanes.

Level-triggered: `assigned` says what it should hold. Each round drops what is not in it and loads what is missing: free
rows at once, each other row when the batch that locks it ends. Partitions that stay never notice.
"""

from __future__ import annotations

import time
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import anyio

from reactive_orch.errors import Refused, Superseded, Unavailable
from reactive_orch.model.reports import RestChanged, RunnerStarted, Suspected
from reactive_orch.model.status import ProjectionStatus
from reactive_orch.postgres import checkpoints
from reactive_orch.postgres.suspicions import Suspicions
from reactive_orch.runtime.backoff import Backoff
from reactive_orch.runtime.cancellation import lasting_group
from reactive_orch.runtime.handling import halting
from reactive_orch.runtime.handling.lanes import Lanes
from reactive_orch.runtime.handling.standing import Standing, step_down
from reactive_orch.runtime.interruptions import passing_over
from reactive_orch.runtime.wakeup import Wakeup

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from reactive_orch.errors import ProjectionFailed
    from reactive_orch.incarnation import Incarnation
    from reactive_orch.model import Checkpoint, Partition, Position, Projection, Subscription
    from reactive_orch.model.membership import Resting
    from reactive_orch.postgres.connection import AnyConnection
    from reactive_orch.runtime.handling.scope import Scope
    from reactive_orch.runtime.handling.together import Together
    from reactive_orch.runtime.reading.window_cache import WindowCache


HALT_AGAIN_S = 1.0


class Runner:
    """Runs one projection, on one log, for one worker."""

    def __init__(self, scope: Scope, caches: Sequence[WindowCache], groups: Sequence[Together] = ()) -> None:
        """Start without partitions. `groups` handle its lanes' events together with those of other runners.

        `scope.changed` is called after each round, reconciled or not.
        """
        self.wakeup = Wakeup()
        self.assigned: frozenset[Partition] = frozenset()
        """The partitions it is to hold."""
        self.row_wait: tuple[float, Partition | None] = (0.0, None)
        """The longest wait for a row that another worker held, since the last assignment; and one it waited for."""
        self.standing = Standing()
        """Whether it takes part."""
        self.resting: Resting | None = None
        """How its lanes rest; None while they run."""
        self.serial = scope.serial
        """Whether its batches go one at a time."""
        self._changed, self._idle = scope.changed, scope.idle
        self._scope = replace(
            scope,
            changed=self.wakeup.set,
            idle=self._lane_idle,
            resting=lambda: self.resting,
            halt=scope.halt if scope.until_idle else self._halt,
            step_down=partial(step_down, scope, self.standing, self.wakeup),
        )
        self.lanes = Lanes(self._scope, caches, groups)
        scope.watchers.emit(RunnerStarted(scope.subject))
        self._saving = False
        self._row_awaited: tuple[float, Partition] | None = None

    @property
    def subscription(self) -> Subscription:
        """What it runs."""
        return self._scope.subscription

    @property
    def projection(self) -> Projection:
        """The same, as it is declared."""
        return self._scope.projection

    @property
    def reconciled(self) -> bool:
        """Whether it holds exactly what it should."""
        return not self._saving and self.lanes.held == self.assigned and self.lanes.remember

    @property
    def only_in_flight(self) -> bool:
        """Whether all it still has to let go is in the hands of handlers."""
        return not self._saving and self.lanes.held - self.assigned <= self.lanes.in_flight

    @property
    def hindrance(self) -> str:
        """The type and code of the error that one of its loops passed over last; empty if there is no recent one."""
        return self._scope.interruptions.cause

    def status(self, standstill_s: float) -> ProjectionStatus:
        """Return how far it is; from memory, in any thread. `standstill_s`: for how long it has not got on."""
        settled = self._scope.follower.settled or 0
        lag, lag_s = self.lanes.lag(settled)
        held, assigned = self.lanes.held, self.assigned
        return ProjectionStatus(
            subscription=self.subscription,
            lag=lag,
            held=len(held),
            behind=self.lanes.behind(settled),
            lag_s=lag_s,
            events_handled=self.lanes.events_handled,
            busy_s=sum(lane.in_hand.busy.seconds for lane in self.lanes),
            lanes=sum(1 for lane in self.lanes if lane.progress.partitions),
            standstill_s=standstill_s,
            failing_keys=self.lanes.failing,
            one_at_a_time=self.serial.on,
            owned=len(held & assigned),
            awaited=len(assigned - held),
            leaving=len(held - assigned),
        )

    def assign(self, partitions: frozenset[Partition]) -> None:
        """Say which partitions it should hold."""
        if partitions != self.assigned:
            self.assigned, self.row_wait = partitions, (0.0, None)
            self.wakeup.set()

    def rest(self, resting: Resting | None) -> None:
        """Let the lanes rest, or run again."""
        if resting != self.resting:
            self.resting = resting
            self._scope.watchers.emit(RestChanged(self._scope.subject, resting))
            self._scope.hooked.paused(resting)
            self.lanes.wake()

    async def _halt(self, error: ProjectionFailed, incarnation: Incarnation) -> None:
        """Let nobody go on with the projection, because of what was found out in this incarnation.

        If the database was lost, or nothing of the projection is this worker's any more, it may not be so now: whoever
        has the partition tries the event again.
        """
        while self.assigned and incarnation == self._scope.database.incarnation:
            try:
                resting = await halting.record(self._scope, error, incarnation)
            except (Unavailable, Superseded) as unrecorded:
                self._scope.interruptions.note("lane", unrecorded)
                await anyio.sleep(HALT_AGAIN_S)
            else:
                self.rest(resting or self.resting)
                return

    def drop(self) -> None:
        """Let go of everything at once, saving nothing: this worker was removed and others go on already."""
        self.assigned = frozenset()
        self.lanes.release(self.lanes.held)

    async def run(self) -> None:
        """Run the lanes and keep to `assigned`, for ever."""
        try:
            async with lasting_group() as tasks:
                self.lanes.start(tasks)
                await self._keep()
        finally:
            self._await_free(frozenset())
            self._scope.hooked.end()

    async def _keep(self) -> None:
        backoff = Backoff(0.05, 5.0)
        while True:
            try:
                await self._reconcile()
                backoff.reset()
            except (Unavailable, Superseded) as error:
                self._scope.interruptions.note("share", error)
                await self._scope.database.admission.pause(backoff.next_s())
                continue
            except Refused:
                self.standing.refused = True
            self._changed()
            await self.wakeup.wait(self.standing.away_s)

    async def _reconcile(self) -> None:
        await self._release()
        missing = self.assigned - self.lanes.held
        if missing:
            await self._load_free(missing)
        else:
            self._deal({}, self._scope.database.incarnation)
        self._await_free(self.assigned - self.lanes.held)

    async def _release(self) -> None:
        lost, incarnation = self.lanes.held - self.assigned, self._scope.database.incarnation
        unsaved = self.lanes.release(lost)
        self._saving = True
        try:
            # Superseded: the new owner was quicker; it reads a stretch without events once more.
            with passing_over(self._scope.watchers.emit, "share", Superseded, of=self._scope.subject):
                await self._scope.save(unsaved, incarnation)
        finally:
            self._saving = False

    async def _load_free(self, missing: frozenset[Partition]) -> None:
        incarnation = self._scope.database.incarnation
        async with self._scope.database.coordination(incarnation) as connection:
            gained = await checkpoints.load_free(connection, self._scope.replica_set, self._scope.projection, missing)
            if not gained:  # the rows are locked, or deleted; the latter is an error
                await checkpoints.demand_complete(connection, self._scope.replica_set, [self.subscription])
            else:
                awaited = self._row_awaited is not None
                await _take_suspects(self._scope, connection, gained, awaited=awaited)
        self._deal(gained, incarnation)

    def _await_free(self, locked: frozenset[Partition]) -> None:
        """Begin another round when one of these rows is free. Those that were free are loaded already."""
        self._scope.node.row_wait.set(self.wakeup, self._scope.replica_set, self.subscription, locked)
        if locked:
            self._row_awaited = self._row_awaited or (time.monotonic(), min(locked))
        elif self._row_awaited is not None:
            (began, partition), self._row_awaited = self._row_awaited, None
            self.row_wait = max(self.row_wait, (time.monotonic() - began, partition), key=lambda wait: wait[0])

    def _deal(self, loaded: Mapping[Partition, Checkpoint], incarnation: Incarnation) -> None:
        # The assignment may have changed while the rows were read: the present one counts. If the database was lost
        # meanwhile, nothing is dealt: each lane that forgets begins another round.
        if incarnation == self._scope.database.incarnation and self.lanes.remember:
            self.lanes.deal(self.assigned, loaded, self._settled(), incarnation)

    def _settled(self) -> Position:
        """Return the settled end, 0 while it is unknown. With 0 nothing is far behind; the next advance deals again."""
        settled = self._scope.follower.settled
        if settled is None:
            self._scope.follower.call(self.wakeup)
        return settled or 0

    def _lane_idle(self) -> None:
        if self.lanes.catch_up:
            self._deal({}, self._scope.database.incarnation)
        self._idle()


async def _take_suspects(
    scope: Scope, connection: AnyConnection, gained: Collection[Partition], *, awaited: bool
) -> None:
    """Find out which of these partitions have lost their owner without a word."""
    suspect = await Suspicions(scope.replica_set, scope.subscription).found(connection, gained, awaited=awaited)
    scope.suspects.take(gained, suspect, scope.config.batch_events)
    if suspect:
        scope.watchers.emit(Suspected(scope.subject, len(suspect)))
