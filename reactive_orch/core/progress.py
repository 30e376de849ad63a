"""How far one lane has read and saved: which window to read next, which checkpoints to swap (protocol 3.7, 4.1, 4.2).

Two positions per partition: `saved`, the checkpoint's row as last loaded or swapped, and `read_to`, up to where the log
is known to hold nothing more for this partition. Between the two there is no event for the partition, so `read_to`
may run ahead of `saved` and be saved lazily. A window covers a partition only if it begins at or before the
partition's `read_to`: otherwise events between the two would be skipped.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from operator import attrgetter
from typing import TYPE_CHECKING

from reactive_orch.incarnation import NEVER, Incarnation, demand_same
from reactive_orch.model import Checkpoint, Event, Partition, Position, Swap, Window

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

SPAN_MAX = 1 << 22
"""Doubling empty windows ends here: to read so many rows, for a filter that few events pass, takes one or two seconds
of a processor, and as long as the disk takes for a gigabyte or more."""

WIDER_AFTER = 16
"""After a read that took too long, so many windows of the narrower width are read before it is doubled again. Where the
doubled one takes too long as well, one read in so many is in vain."""

DENSE_POSITIONS = 16
"""To find a partition's first event costs as much as to pass over about so many events of others."""

_PARTITION = attrgetter("partition")


@dataclass(frozen=True, slots=True)
class Batch:
    """Events to handle in one transaction, and the swaps that go with them."""

    events: Sequence[Event]
    swaps: tuple[Swap, ...]
    read_to: Mapping[Partition, Position]
    """The partitions it was planned for, and up to where each had been read then."""
    incarnation: Incarnation = NEVER
    cut_at: Position | None = None
    """The last event's position, when the events after it were left for later."""
    replays_to: Position = 0
    """No event behind this one is replayed."""

    @property
    def replays(self) -> bool:
        """Whether it may have replayed events."""
        return bool(self.events) and self.events[0].global_position <= self.replays_to

    def beginning(self, events: int) -> Batch:
        """Return its first events as a batch of their own, which ends with the last of them.

        Each partition that has a swap is moved to that end, since it has no other event up to there. One that had been
        read further stays where it was read to: what lies before that has been handled.
        """
        kept = self.events[:events]
        end = kept[-1].global_position
        swaps = tuple(Swap(s.partition, s.expected, max(end, self.read_to[s.partition])) for s in self.swaps)
        return replace(self, events=kept, swaps=swaps, cut_at=end)


@dataclass(slots=True)
class Progress:
    """The partitions of one lane, as one incarnation of the database knows them."""

    batch_events: int
    """Events that a batch may have now."""
    partitions_total: int
    incarnation: Incarnation = NEVER
    saved: dict[Partition, Checkpoint] = field(default_factory=dict)
    read_to: dict[Partition, Position] = field(default_factory=dict)
    replays_to: Position = 0
    """Where the furthest of the partitions it had since it began had stood before it was rewound."""
    _in_order: tuple[Partition, ...] | None = None
    """The partitions in order, once somebody has asked, until they are others."""
    _stretch: float = 1
    """By how much the window is wider than batch size ÷ share: doubled by each window that brings few events, halved
    by each whose first half fills the batch; where the own partitions are the busy ones it falls below 1."""
    _widest: int = SPAN_MAX
    """No window is wider: halved by each that took too long to read."""
    _widest_read: int = 0
    """How many of this width have been read since."""

    @property
    def partitions(self) -> frozenset[Partition]:
        """The partitions this lane holds."""
        return frozenset(self.saved)

    @property
    def low_water(self) -> Position | None:
        """Up to where all partitions have been read; None without partitions."""
        return min(self.read_to.values(), default=None)

    def begin(self, incarnation: Incarnation) -> None:
        """Forget everything, and go on in another incarnation, or the same."""
        self.drop(self.partitions)
        self.incarnation, self.replays_to = incarnation, 0

    def take(self, checkpoints: Mapping[Partition, Checkpoint], incarnation: Incarnation = NEVER) -> None:
        """Begin with partitions where their checkpoints stand, as read in this incarnation."""
        demand_same(self.incarnation, incarnation)
        self._in_order = None
        self.saved.update(checkpoints)
        self.read_to.update((partition, row.position) for partition, row in checkpoints.items())
        self.replays_to = max(self.replays_to, *(row.handled_to for row in checkpoints.values()), 0)

    def drop(self, partitions: Iterable[Partition]) -> None:
        """Forget partitions."""
        self._in_order = None
        for partition in partitions:
            self.saved.pop(partition, None)
            self.read_to.pop(partition, None)

    def move(self, partitions: Collection[Partition], other: Progress) -> None:
        """Hand partitions to another lane of this incarnation as they stand, unsaved reading included."""
        demand_same(self.incarnation, other.incarnation)
        other._in_order = None
        for partition in partitions:
            other.saved[partition] = self.saved[partition]
            other.read_to[partition] = self.read_to[partition]
        other.replays_to = max(other.replays_to, self.replays_to)
        self.drop(partitions)

    def window(self, settled: Position, limit: int) -> Window | None:
        """Return what to read next, or None when all partitions have been read up to the settled position."""
        low = self.low_water
        if low is None or low >= settled:
            return None
        high = min(settled, low + self._span())
        return self._window(self._behind(high), low, high, limit)

    def _behind(self, high: Position) -> tuple[Partition, ...]:
        """Return the partitions that have not been read up to there, in order: mostly all of them."""
        if max(self.read_to.values()) >= high:
            return tuple(sorted(partition for partition, read_to in self.read_to.items() if read_to < high))
        if self._in_order is None:
            self._in_order = tuple(sorted(self.read_to))
        return self._in_order

    def following(self, window: Window, end: Position, settled: Position) -> Window | None:
        """Return what is likely to be asked for once this window has been passed up to `end`.

        None near the log's end: what is still to come would be left out of a window that was read early, and the next
        batch would be smaller for it.
        """
        high = end + self._span()
        if high > settled or len(window.partitions) < len(self.saved):
            return None
        return self._window(window.partitions, end, high, self.batch_events)

    def _window(self, partitions: tuple[Partition, ...], low: Position, high: Position, limit: int) -> Window:
        """Return the window: scattered for few partitions over many positions, else read past the events of others."""
        few = len(partitions) * 2 < self.partitions_total
        scattered = few and high - low > DENSE_POSITIONS * len(partitions)
        return Window(partitions, low, high, limit, scattered, self.incarnation)

    def _span(self) -> int:
        share = max(len(self.saved), 1)
        span = int(self.batch_events * self.partitions_total / share * self._stretch)
        return min(max(span, self.batch_events, 1), self._widest)

    def widest(self, window: Window) -> bool:
        """Tell whether no window can be wider than this one."""
        return window.high - window.low >= self._widest

    def narrow(self, window: Window) -> None:
        """Note that reading this window took too long. The partitions stay: nothing is in doubt."""
        self._widest, self._widest_read = max((window.high - window.low) // 2, self.batch_events, 1), 0
        self._stretch = max(self._stretch / 2, 1)

    def _widen(self) -> None:
        self._widest_read += 1
        if self._widest_read >= WIDER_AFTER:
            self._widest, self._widest_read = min(self._widest * 2, SPAN_MAX), 0

    def plan(self, window: Window, events: Sequence[Event], end: Position) -> Batch:
        """Return what of a window's events is to be handled, now that it has been read up to `end`.

        Partitions dropped (or taken anew, further back) since the window was made are left out, and so are
        events that a partition already has behind it.
        """
        demand_same(self.incarnation, window.incarnation)
        covered = _covered(self.read_to, self._in_order, window)
        if len(covered) < len(window.partitions) or max(covered.values()) > window.low:
            ahead = (e for e in events if e.partition in covered and e.global_position > covered[e.partition])
            events = tuple(ahead)  # a handler gets them, and may not take any of them out
        touched = sorted(set(map(_PARTITION, events)))
        swaps = tuple(Swap(p, self.saved[p], end) for p in touched)
        return Batch(events, swaps, covered, self.incarnation, replays_to=self.replays_to)

    def unread(self, window: Window, partition: Partition, position: Position) -> Batch:
        """Return the batch of the window's first event, which cannot be read."""
        covered = _covered(self.read_to, self._in_order, window)
        swaps = (
            (Swap(partition, self.saved[partition], position),) if covered.get(partition, position) < position else ()
        )
        return Batch((), swaps, covered, self.incarnation, position)

    def passed(self, window: Window, end: Position, batch: Batch) -> None:
        """Note that the window has been read up to `end` and its batch, which may be empty, has been committed.

        A partition that came, or came back further behind, after the batch was planned stays where it is.
        """
        demand_same(self.incarnation, window.incarnation, batch.incarnation)
        if batch.read_to == self.read_to and max(self.read_to.values(), default=end) <= end:
            self.read_to.update(dict.fromkeys(self.read_to, end))  # what the loop does, for all of them at once
        else:
            for partition, planned in batch.read_to.items():
                if (now := self.read_to.get(partition, -1)) >= planned:
                    self.read_to[partition] = max(now, end)
        self.swapped(batch.swaps)
        if self.widest(window) and end >= window.high:
            self._widen()
        if (end - window.low) * 2 < window.high - window.low and self._span() > self.batch_events:
            self._stretch /= 2
        elif len(batch.events) * 2 < self.batch_events and self._span() <= end - window.low < self._widest:
            self._stretch *= 2

    def swapped(self, swaps: Iterable[Swap]) -> None:
        """Note that these swaps have been committed."""
        for swap in swaps:
            if swap.partition in self.saved:
                self.saved[swap.partition] = swap.expected._replace(position=swap.target)

    @property
    def has_unsaved(self) -> bool:
        """Whether anything has been read without finding an event, and is not saved."""
        return any(self.read_to[partition] > row.position for partition, row in self.saved.items())

    def unsaved(self, partitions: Iterable[Partition]) -> tuple[Swap, ...]:
        """Return the swaps that save what has been read of these partitions without finding an event."""
        return tuple(
            Swap(partition, self.saved[partition], self.read_to[partition])
            for partition in sorted(partitions)
            if partition in self.saved and self.read_to[partition] > self.saved[partition].position
        )


def _covered(
    read_to: Mapping[Partition, Position], in_order: tuple[Partition, ...] | None, window: Window
) -> dict[Partition, Position]:
    """Return those of a window's partitions that have been read to where it begins, and up to where; mostly all."""
    if window.partitions == in_order and min(read_to.values()) >= window.low:
        return dict(read_to)
    return {p: read_to[p] for p in window.partitions if read_to.get(p, -1) >= window.low}
