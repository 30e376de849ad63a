"""An event that ends its process: how it is found without anybody being blamed for it (protocol 7.11).

A partition whose owner was lost without a word is *suspect*. Whoever has it then says, before each call of a handler,
what he has in hand. An event that was alone in the hand of a lost worker is set aside; a larger batch is divided.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from reactive_orch.errors import KilledProcess

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from reactive_orch.core.progress import Batch
    from reactive_orch.model import Event, Partition, Position
    from reactive_orch.model.keys import Marker

TENTH = 10
"""What a batch is divided by that has ended its process. Each division costs a process, small batches milliseconds."""


@dataclass(slots=True)
class Suspects:
    """The suspect partitions of one projection on one worker."""

    found: dict[Partition, Marker | None] = field(default_factory=dict)
    """With what the last owner had in hand when it was lost."""
    _events_left: dict[Partition, int] = field(default_factory=dict)
    """After so many events of windows with a partition all is behind us that its lost owner can have had in hand."""

    def take(self, loaded: Collection[Partition], suspect: Mapping[Partition, Marker | None], events: int) -> None:
        """Note which of the partitions that were loaded are suspect; a batch has at most `events`."""
        self.forget(loaded)
        self.found.update(suspect)
        self._events_left.update(dict.fromkeys(suspect, events))

    def concern(self, events: Sequence[Event]) -> bool:
        """Tell whether any of these events is of a suspect partition."""
        return bool(self.found) and any(event.partition in self.found for event in events)

    def narrowed(self, batch: Batch) -> Batch:
        """Return as much of a batch as may be handled at once.

        An event that somebody had alone in hand is left alone, and what comes before it goes before it.
        """
        if not self.concern(batch.events):
            return batch
        alone = next((n for n, event in enumerate(batch.events) if self._was_alone(event)), None)
        if alone is not None:
            return batch.beginning(alone or 1)
        together = (self._together(event.partition) for event in batch.events)
        limit = max(min((events // TENTH for events in together if events > 1), default=len(batch.events)), 1)
        return batch.beginning(limit) if limit < len(batch.events) else batch

    def _together(self, partition: Partition) -> int:
        """Return how many events somebody had in hand, some of this partition."""
        marker = self.found.get(partition)
        return 0 if marker is None else marker.events

    def _was_alone(self, event: Event) -> bool:
        return self.killed(event.partition, event.global_position) is not None

    def killed(self, partition: Partition, position: Position) -> Marker | None:
        """Return what a lost worker has said if it had this event in hand, alone."""
        marker = self.found.get(partition)
        return marker if marker is not None and (marker.position, marker.events) == (position, 1) else None

    def demand_unhurt(self, batch: Batch) -> None:
        """Raise KilledProcess if the batch is an event that a lost worker had in hand, alone."""
        first = batch.events[0]
        marker = self.killed(first.partition, first.global_position)
        if marker is not None and len(batch.events) == 1:
            raise KilledProcess(marker.worker, marker.lane)

    def resolved(self, position: Position) -> None:
        """Note that it is recorded what became of the event that a lost worker had in hand."""
        for partition, marker in self.found.items():
            if marker is not None and marker.position == position:
                self.found[partition] = None

    def passed(self, events: int, of: Collection[Partition]) -> frozenset[Partition]:
        """Note that so many events of a window of these partitions are handled; return those that are suspect no more.

        A batch that was in hand when a partition was loaded puts nothing of it behind us.
        """
        read = self.found.keys() & of
        for partition in read:
            self._events_left[partition] -= events
        return frozenset(partition for partition in read if self._events_left[partition] <= 0)

    def forget(self, partitions: Collection[Partition]) -> None:
        """Note that these partitions are suspect no more."""
        for partition in partitions:
            self.found.pop(partition, None)
            self._events_left.pop(partition, None)
