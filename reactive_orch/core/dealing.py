"""Which of a projection's lanes each partition goes to, so that a backlog delays no fresh event.

Each partition belongs to one of the ordinary lanes, by its number. If it is far behind the settled end of the log, it
goes to the catch-up lane for as long as its own lane has fresher partitions to serve; with nobody to delay it stays in
its own lane, or returns to it. All partitions are dealt at once, from where they stand now; the order in which they
came does not count. So that none goes to and fro, the lane that a partition has now counts too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping

    from reactive_orch.model import Partition, Position

LaneNumber: TypeAlias = int
"""0 … lanes-1; the catch-up lane has the number after the last."""

FAR_BEHIND_BATCHES = 20
"""A partition this many batches behind the settled end would keep fresh events waiting for too long."""


def deal(
    dealt: Mapping[Partition, LaneNumber],
    positions: Mapping[Partition, Position],
    settled: Position,
    lanes: int,
    batch_events: int,
) -> dict[Partition, LaneNumber]:
    """Return the lane for each partition of `positions`, which says up to where it has been read.

    `dealt` is where partitions are now, without those that have just come. A partition leaves the catch-up lane when
    no more than a batch is left before it, so that merging delays nobody, or when its own lane is without work.
    """
    near, far = settled - batch_events, settled - FAR_BEHIND_BATCHES * batch_events
    fresh = {partition % lanes for partition, position in positions.items() if position >= far}
    served = {dealt[partition] for partition in dealt.keys() & positions.keys()}

    def lane_of(partition: Partition, position: Position) -> LaneNumber:
        own = partition % lanes
        catches_up = dealt.get(partition) == lanes
        if position < near and catches_up:
            return lanes if own in fresh | served else own
        return lanes if position < far and own in fresh else own

    return {partition: lane_of(partition, position) for partition, position in positions.items()}
