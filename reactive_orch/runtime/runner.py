"""A runner: one projection on one worker, its assigned partitions dealt to lanes.

Level-triggered: `assigned` says what it should hold, and each round lets go of what it should not and loads what
it lacks: the free checkpoints first, then the others, each as its holder ends. Partitions that stay never notice.
"""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import anyio

from reactive_orch.core.dealing import deal
from reactive_orch.errors import Refused, Superseded, Unavailable
from reactive_orch.postgres import checkpoints
from reactive_orch.runtime.backoff import Backoff
from reactive_orch.runtime.cancellation import lasting_group
from reactive_orch.runtime.interruptions import passing_over
from reactive_orch.runtime.lane import Lane
from reactive_orch.runtime.wakeup import Wakeup

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from reactive_orch.incarnation import Incarnation
    from reactive_orch.model import Checkpoint, Partition, Position
    from reactive_orch.runtime.scope import Scope
    from reactive_orch.runtime.window_cache import WindowCache

_logger = logging.getLogger("reactive_orch")


class Runner:
    """Runs one projection on one worker."""

    def __init__(self, scope: Scope, caches: Sequence[WindowCache]) -> None:
        """Start without partitions. `scope.changed` is called when it may have been reconciled."""
        self.wakeup = Wakeup()
        self._changed, self._rests = scope.changed, scope.rests
        self._scope = replace(scope, changed=self.wakeup.set, rests=self._lane_rests)
        *self._lanes, self._catch_up = [Lane(self._scope, cache) for cache in caches]
        self.assigned: frozenset[Partition] = frozenset()
        """The partitions it is to hold."""
        self._saving = False
        self._row_awaited: tuple[float, Partition] | None = None
        self.row_wait: tuple[float, Partition | None] = (0.0, None)
        """The longest wait for a row that another worker held, since the last assignment; and one it waited for."""
        self.refused = False
        """The projection is recorded with another filter now: this worker cannot go on with it."""

    @property
    def name(self) -> str:
        """The projection's name."""
        return self._scope.projection.name

    @property
    def _all_lanes(self) -> list[Lane]:
        return [*self._lanes, self._catch_up]

    @property
    def held(self) -> frozenset[Partition]:
        """The partitions that lanes hold now, those of a batch in flight included."""
        return frozenset().union(*(lane.progress.partitions for lane in self._all_lanes))

    @property
    def reconciled(self) -> bool:
        """Whether it holds exactly what it should."""
        return not self._saving and self.held == self.assigned and self._remembers

    @property
    def _remembers(self) -> bool:
        return all(lane.remembers for lane in self._all_lanes)

    @property
    def only_in_flight(self) -> bool:
        """Whether all it still has to let go is in the hands of handlers."""
        return not self._saving and self.held - self.assigned <= self.in_flight

    @property
    def in_flight(self) -> frozenset[Partition]:
        """The partitions of batches that are being handled or saved now."""
        return frozenset().union(*(lane.in_flight for lane in self._all_lanes))

    @property
    def low(self) -> Position | None:
        """Up to where all its partitions have been read; None without partitions."""
        return min((low for lane in self._all_lanes if (low := lane.progress.low) is not None), default=None)

    @property
    def failing_since(self) -> float | None:
        """Since when one of its lanes has been trying a failing event, by the monotonic clock."""
        return min((lane.failing_since for lane in self._all_lanes if lane.failing_since is not None), default=None)

    @property
    def lanes(self) -> Sequence[Lane]:
        """The lanes, for whoever watches them."""
        return self._all_lanes

    @property
    def hindrance(self) -> str:
        """The type and code of the error that one of its loops passed over last; empty if there is no recent one."""
        return self._scope.interruptions.cause

    def lag(self, settled: Position) -> tuple[int, float]:
        """Return how far its slowest lane is behind the settled end of the log: in positions, and in seconds."""
        behind = [lane for lane in self._all_lanes if (low := lane.progress.low) is not None and low < settled]
        positions = max((settled - (lane.progress.low or 0) for lane in behind), default=0)
        oldest = min((lane.handling.reached_at for lane in behind), default=None)
        return positions, 0.0 if oldest is None else max(time.time() - oldest, 0.0)

    def statuses(self) -> dict[str, int]:
        """Return how many partitions are owned, awaited (held elsewhere still), and leaving (in a last batch)."""
        held, assigned = self.held, self.assigned
        return {"owned": len(held & assigned), "awaited": len(assigned - held), "leaving": len(held - assigned)}

    @property
    def events_handled(self) -> int:
        """Events in committed batches since the start."""
        return sum(lane.events_handled for lane in self._all_lanes)

    def assign(self, partitions: frozenset[Partition]) -> None:
        """Say which partitions it should hold."""
        if partitions != self.assigned:
            self.assigned, self.row_wait = partitions, (0.0, None)
            self.wakeup.set()

    def drop(self) -> None:
        """Let go of everything at once, saving nothing: this worker was removed and others go on already."""
        self.assigned = frozenset()
        for lane in self._all_lanes:
            lane.release(lane.progress.partitions)

    def cut(self) -> None:
        """End the batches in hand: their worker is no more, and their handlers may not know it."""
        for lane in self._all_lanes:
            lane.cut()

    def rewound(self, epoch: int) -> None:
        """Load again what stands at an older epoch."""
        for lane in self._all_lanes:
            lane.rewound(epoch)

    def wake(self) -> None:
        """Make every lane look: what it remembers may have become invalid."""
        for lane in self._all_lanes:
            lane.wakeup.set()

    async def run(self) -> None:
        """Run the lanes and keep to `assigned`, for ever."""
        try:
            async with lasting_group() as tasks:
                for lane in self._all_lanes:
                    tasks.start_soon(lane.run)
                await self._keep()
        finally:
            self._await_free(frozenset())

    async def _keep(self) -> None:
        backoff = Backoff(0.05, 5.0)
        while True:
            try:
                await self._reconcile()
                backoff.reset()
            except (Unavailable, Superseded) as error:
                self._scope.interruptions.note("share", error)
                await anyio.sleep(backoff.next_s())
                continue
            except Refused:
                self.refused = True
            self._changed()
            await self.wakeup.wait()

    async def _reconcile(self) -> None:
        await self._release()
        missing = self.assigned - self.held
        if missing:
            await self._load_free(missing)
        else:
            self._deal({}, self._scope.database.incarnation)
        self._await_free(self.assigned - self.held)

    async def _release(self) -> None:
        lost, incarnation = self.held - self.assigned, self._scope.database.incarnation
        unsaved = [swap for lane in self._all_lanes for swap in lane.release(lost)]
        self._saving = True
        try:
            # Superseded: the new owner was quicker; it reads a stretch without events once more.
            with passing_over("share", Superseded):
                await self._scope.save(unsaved, incarnation)
        finally:
            self._saving = False

    async def _load_free(self, missing: frozenset[Partition]) -> None:
        incarnation = self._scope.database.incarnation
        async with self._scope.database.coordination(incarnation) as connection:
            gained = await checkpoints.load_free(connection, self._scope.replica_set, self._scope.projection, missing)
            if not gained:  # held by others, or not there any more
                await checkpoints.demand_complete(connection, self._scope.replica_set, [self.name])
        self._deal(gained, incarnation)

    def _await_free(self, locked: frozenset[Partition]) -> None:
        """Look again when one of these rows is free: what is free already does not wait with them."""
        self._scope.node.row_wait.set(self.wakeup, self._scope.replica_set, self.name, locked)
        if locked:
            self._row_awaited = self._row_awaited or (time.monotonic(), min(locked))
        elif self._row_awaited is not None:
            (began, partition), self._row_awaited = self._row_awaited, None
            self.row_wait = max(self.row_wait, (time.monotonic() - began, partition), key=lambda wait: wait[0])

    def _deal(self, gained: Mapping[Partition, Checkpoint], incarnation: Incarnation) -> None:
        """Bring each partition to its lane: what was loaded, and what is better off in another one by now."""
        # While the rows were read, others may have been assigned, and the database have been lost. Lanes that have not
        # forgotten yet what they knew before call for another round when they have.
        if incarnation != self._scope.database.incarnation or not self._remembers:
            return
        lanes, loaded = self._all_lanes, {p: gained[p] for p in (self.assigned - self.held) & gained.keys()}
        kept = [lane.progress.partitions & self.assigned for lane in lanes]
        dealt = {p: number for number, partitions in enumerate(kept) for p in partitions}
        positions = {p: lanes[number].progress.read_to[p] for p, number in dealt.items()}
        positions |= {p: row.position for p, row in loaded.items()}
        due = deal(dealt, positions, self._settled(), len(self._lanes), self._scope.config.batch_events)
        for partition, number in due.items():
            if partition in loaded:
                lanes[number].take({partition: loaded[partition]}, incarnation)
            elif dealt[partition] != number:
                lanes[dealt[partition]].hand_over(partition, lanes[number])

    def _settled(self) -> Position:
        """Return the settled end; 0 as long as it is unknown: then nothing is far behind it, and is dealt again."""
        settled = self._scope.follower.settled
        if settled is None:
            self._scope.follower.call(self.wakeup)
        return settled or 0

    def _lane_rests(self) -> None:
        if self._catch_up.progress.partitions:
            self._deal({}, self._scope.database.incarnation)
        self._rests()
