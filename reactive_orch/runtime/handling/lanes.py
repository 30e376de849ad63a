"""The lanes of one runner, and which partitions each of them has. `core.dealing` decides that."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from reactive_orch.core.dealing import deal
from reactive_orch.runtime.handling.lane import Lane
from reactive_orch.runtime.handling.together import Member

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from anyio.abc import TaskGroup

    from reactive_orch.incarnation import Incarnation
    from reactive_orch.model import Checkpoint, Partition, Position, Swap
    from reactive_orch.runtime.handling.scope import Scope
    from reactive_orch.runtime.handling.together import Together
    from reactive_orch.runtime.reading.window_cache import WindowCache


class Lanes:
    """The ordinary ones, and the one for what is far behind."""

    def __init__(self, scope: Scope, caches: Sequence[WindowCache], groups: Sequence[Together] = ()) -> None:
        """Make a lane for each cache, without partitions; the last is the catch-up lane, which belongs to no group."""
        self._all = [Lane(scope, cache) for cache in caches]
        for lane, together in zip(self._all, groups, strict=False):
            lane.group = Member(lane, scope, together)
        self._batch_events = scope.config.batch_events
        self._one = scope.projection.exclusive
        self.hooked = scope.hooked
        """Who is told of their partitions."""

    def __iter__(self) -> Iterator[Lane]:
        return iter(self._all)

    @property
    def held(self) -> frozenset[Partition]:
        """The partitions that lanes hold now, those of a batch in flight included."""
        return frozenset().union(*(lane.progress.partitions for lane in self._all))

    @property
    def in_flight(self) -> frozenset[Partition]:
        """The partitions of batches that are being handled or saved now."""
        return frozenset().union(*(lane.in_hand.partitions for lane in self._all))

    @property
    def remember(self) -> bool:
        """Whether what they know is of the present incarnation: else one is still to forget it."""
        return all(lane.remembers for lane in self._all)

    @property
    def catch_up(self) -> bool:
        """Whether something is far behind."""
        return bool(self._all[-1].progress.partitions)

    @property
    def low_water(self) -> Position | None:
        """Up to where all their partitions have been read; None without partitions."""
        return min((low for lane in self._all if (low := lane.progress.low_water) is not None), default=None)

    @property
    def failing_since(self) -> float | None:
        """Since when one of them has been trying a failing event, by the monotonic clock."""
        return min((lane.failing_since for lane in self._all if lane.failing_since is not None), default=None)

    @property
    def retrying(self) -> bool:
        """Whether a failing key of theirs is to be tried again, as far as they know."""
        return any(lane.aside.retrying for lane in self._all)

    @property
    def failing(self) -> int:
        """Their failing keys, as last seen."""
        return sum(lane.aside.failing for lane in self._all)

    @property
    def events_handled(self) -> int:
        """Events in committed batches since the start."""
        return sum(lane.in_hand.events_handled for lane in self._all)

    def lag(self, settled: Position) -> tuple[int, float]:
        """Return how far the slowest one is behind the settled end of the log: in positions, and in seconds.

        The seconds are the age of the oldest event that waits.
        """
        behind = [lane for lane in self._all if (low := lane.progress.low_water) is not None and low < settled]
        positions = max((settled - (lane.progress.low_water or 0) for lane in behind), default=0)
        oldest = min((lane.in_hand.oldest_at for lane in behind), default=None)
        return positions, 0.0 if oldest is None else max(time.time() - oldest, 0.0)

    def behind(self, settled: Position) -> int:
        """Return how far they are behind the settled end of the log: in positions, summed over their partitions."""
        read_to = [position for lane in self._all for position in tuple(lane.progress.read_to.values())]
        return sum(settled - position for position in read_to if position < settled)

    def start(self, tasks: TaskGroup) -> None:
        """Run each as a task."""
        for lane in self._all:
            tasks.start_soon(lane.run)

    def release(self, lost: frozenset[Partition]) -> list[Swap]:
        """Let partitions go, those in a batch when it ends; return the swaps that save what was read of the others."""
        return [swap for lane in self._all for swap in lane.release(lost)]

    def cut(self) -> None:
        """End the batches in hand: their worker is no more, and their handlers may not know it."""
        for lane in self._all:
            lane.in_hand.cut()

    def rewound(self, epoch: int) -> None:
        """Load again what stands at an older epoch."""
        for lane in self._all:
            lane.rewound(epoch)

    def wake(self) -> None:
        """Make every lane look: what it remembers may have become invalid."""
        self._all[0].trials.opinions.glance()
        for lane in self._all:
            lane.aside.glance()
            lane.wakeup.set()

    def want_opinion(self) -> None:
        """Let the catch-up lane try what another worker would park: that may wait, and fresh events should not."""
        self._all[-1].trials.opinions.want()
        self._all[-1].wakeup.set()

    def deal(
        self,
        assigned: frozenset[Partition],
        loaded: Mapping[Partition, Checkpoint],
        settled: Position,
        incarnation: Incarnation,
    ) -> None:
        """Bring each partition to its lane: what was loaded, and what is better off in another one by now."""
        gained = {p: loaded[p] for p in (assigned - self.held) & loaded.keys()}
        kept = [lane.progress.partitions & assigned for lane in self._all]
        dealt = {p: number for number, partitions in enumerate(kept) for p in partitions}
        positions = {p: self._all[number].progress.read_to[p] for p, number in dealt.items()}
        positions |= {p: row.position for p, row in gained.items()}
        lanes = len(self._all) - 1
        due = dict.fromkeys(positions, 0) if self._one else deal(dealt, positions, settled, lanes, self._batch_events)
        for partition, number in due.items():
            if partition in gained:
                self._all[number].take({partition: gained[partition]}, incarnation)
            elif dealt[partition] != number:
                self._all[dealt[partition]].hand_over(partition, self._all[number])
