"""Events that came with the look that has settled them, for lanes that have read all before (protocol 6.7)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from reactive_orch.runtime.reading.window_cache import Fetched

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from collections.abc import Set as AbstractSet

    from reactive_orch.incarnation import Incarnation
    from reactive_orch.model import Event, Filter, Partition, Position, Window


@dataclass(frozen=True, slots=True)
class Fresh:
    """All events of some partitions in (low, high]; `high` is settled."""

    partitions: frozenset[Partition]
    low: Position
    high: Position
    events: Sequence[Event]
    incarnation: Incarnation

    def fetched(self, window: Window, wanted: Filter, read_to: Mapping[Partition, Position]) -> Fetched | None:
        """Return what reading a window would bring, None if not all of it is here.

        `read_to` are the partitions of whoever asks, and up to where each has been read; the window is made of these.
        """
        if not self._has(window):
            return None
        events = tuple(
            event
            for event in self.events
            if read_to.get(event.partition, window.high) < event.global_position <= window.high and wanted.passes(event)
        )[: window.limit]
        end = window.high if len(events) < window.limit else events[-1].global_position
        return Fetched(window, events, end)

    def _has(self, window: Window) -> bool:
        inside = self.low <= window.low and window.high <= self.high
        return inside and window.incarnation == self.incarnation and self.partitions.issuperset(window.partitions)


class Reader(Protocol):
    """Who has read all there is, and waits for more."""

    @property
    def partitions(self) -> AbstractSet[Partition]:
        """What it reads."""
        ...

    def hear(self, fresh: Fresh | None) -> bool:
        """Learn that more is settled, and the events of it if they are known; return whether it waits on."""
        ...
