"""After a failure: which events the next batch has, until the failing one runs alone, and how often that was tried."""

from __future__ import annotations

from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from reactive_orch.core.progress import Batch
    from reactive_orch.model import Partition, Position

_PARTITION = attrgetter("partition")


@dataclass(slots=True)
class Attempts:
    """How a lane narrows a failing batch down to the failing event, and counts that event's attempts.

    The events before the failing one are committed as a batch of their own; then it runs alone. A batch handler does
    not tell which event failed: its batch is halved, then goes one by one.
    """

    since: Position = 0
    """Where the batch began that failed last. Whoever stands before it was rewound, and has not come to it yet."""
    until: Position = 0
    """Where the failing event is, or, while it is not known which it is, the last one that it may be."""
    limit: int = 0
    """How many events a batch may have up to there."""
    count: int = 0
    """How often the failing event has been tried alone, in a row."""
    partitions: frozenset[Partition] = frozenset()
    """Those of the events that may be the failing one; empty when it may be of any."""

    def stands(self, read_to: Mapping[Partition, Position]) -> bool:
        """Tell whether a failing event is still ahead of these partitions: not passed, rewound past or given away.

        `read_to`: partition → up to where the lane has read it.
        """
        return any(self.since <= read_to.get(partition, -1) < self.until for partition in self.partitions or read_to)

    def limit_of(self, low: Position, batch_events: int) -> int:
        """Return how many events the next batch may have."""
        return self.limit if self.limits(low) else batch_events

    def limits(self, low: Position) -> bool:
        """Tell whether a failing event is shortly ahead of this position."""
        return self.since <= low < self.until

    def failed(self, batch: Batch, failing: int | None) -> None:
        """Note a failed attempt; `failing` is the index of the event that failed, None when unknown."""
        events, self.since = batch.events, min(batch.read_to.values())
        last = events[-1 if failing is None else failing]
        alone = len(events) == 1
        self.count = self.count + 1 if alone and self.until == last.global_position else int(alone)
        self.until = last.global_position
        self.partitions = frozenset(map(_PARTITION, events if failing is None else [last]))
        self.limit = max((len(events) // 2) if failing is None else failing, 1)

    def unreadable(self, low: Position, position: Position, partition: Partition) -> None:
        """Note a failed attempt to read the event at `position`, the first one after `low`: it fails alone."""
        self.count = self.count + 1 if self.until == position else 1
        self.since, self.until, self.limit = low, position, 1
        self.partitions = frozenset({partition})

    def succeeded(self) -> None:
        """Note a committed batch: up to the failing event the next ones go one by one."""
        self.limit = 1
        self.count = 0
