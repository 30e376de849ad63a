"""The windows that the lanes of one worker have read last, for lanes of other projections that stand where they stood.

    lane of p   ask -> not there -> read (SQL) -> put
    lane of q   ask -> there, or on its way -> wait for it

Projections that begin together, and those that rest together at the end of the log, ask for the same windows; whoever
asks first reads for all (protocol 4.3). Nobody waits for a slower lane: it reads by itself what is not here any more.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import anyio

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from reactive_orch.model import Event, Position, Projection, Subscription, Window

WINDOWS_KEPT = 8
"""How far, in windows, a lane may be behind another and still share what that one reads. Lanes drift: five projections
in batches of 500 caught up 1.4, 1.7 and 1.8 times as fast as each for itself with 4, 8 and 16 (bench/shared.py)."""

BYTES_KEPT = 16 * 1024 * 1024
"""How much memory the caches of a worker may keep: as much as one lane with two windows of large events in hand."""
EVENT_BYTES = 800
"""What an event takes besides what its columns hold, measured with keys of some ten characters on Python 3.11."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """A window that has been read up to `end`."""

    window: Window
    events: Sequence[Event]
    end: Position
    size: int = 0
    """What the events' columns hold, in bytes as they are stored."""


@dataclass(slots=True, eq=False)
class Fetch:
    """A window that is to be read, is being read, or has been."""

    window: Window
    under_way: bool = False
    """It has a connection: the database is at work on it, or has been."""
    fetched: Fetched | None = None
    size: int = 0
    """How much memory its events take, in bytes, once the cache has weighed it."""
    arrived: anyio.Event = field(default_factory=anyio.Event)
    """It has been read, or that has failed and `fetched` is None."""

    def begins(self, window: Window) -> bool:
        """Whether it is this window, up to some position; what another incarnation has read is another window."""
        mine = self.window
        return (mine.incarnation, mine.low, mine.limit, mine.partitions) == (
            window.incarnation,
            window.low,
            window.limit,
            window.partitions,
        )

    def brings(self, window: Window) -> bool:
        """Whether it brings all that reading this window would."""
        if self.arrived.is_set() and self.fetched is None:
            return False
        full = self.fetched is not None and self.fetched.end < self.window.high
        return self.begins(window) and (full or self.window.high >= window.high)


class WindowCache:
    """The last windows read by lanes that may stand at the same position. Not for lanes with different filters."""

    def __init__(self, lanes: int, bytes_kept: int = BYTES_KEPT) -> None:
        """Keep nothing yet, and nothing ever for a single lane."""
        self._last: deque[Fetch] = deque(maxlen=WINDOWS_KEPT if lanes > 1 else 0)
        self._bytes_kept = bytes_kept

    def find(self, window: Window) -> Fetch | None:
        """Return what brings this window, read or being read; None: whoever asks has to read it."""
        return next((fetch for fetch in self._last if fetch.brings(window)), None)

    def put(self, fetch: Fetch) -> None:
        """Keep what is going to be read; the oldest goes."""
        self._last.append(fetch)

    def weigh(self, fetch: Fetch) -> None:
        """Take note of what has arrived; the oldest go until the others are light enough. Who waits for one has it."""
        if self._last and fetch.fetched is not None:
            fetch.size = len(fetch.fetched.events) * EVENT_BYTES + fetch.fetched.size
        while sum(kept.size for kept in self._last) > self._bytes_kept:
            self._last.popleft()


def caches_of(projections: Iterable[Projection]) -> Mapping[Subscription, Sequence[WindowCache]]:
    """Return each projection's caches: one for each of its lanes, and the last for its catch-up lane.

    Projections of the same log with the same filter and as many lanes have the same caches: lanes of the same number
    get the same partitions.
    """
    kinds = {each.subscription: (each.log, each.filter, each.concurrency) for each in projections}
    sharers = Counter(kinds.values())
    bytes_kept = BYTES_KEPT // max(sum(lanes + 1 for *_, lanes in sharers), 1)
    shared = {kind: [WindowCache(sharers[kind], bytes_kept) for _ in range(kind[-1] + 1)] for kind in sharers}
    return {subscription: shared[kind] for subscription, kind in kinds.items()}
