"""How the lag of each projection went of late, for those who watch: what was seen, and a small plot of it."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

    from reactive_orch.model import Subscription
    from reactive_orch.model.overview import Overview

KEPT_S = 120.0
"""For so long a lag is remembered."""
UNKNOWN = " "
_BARS = "▁▂▃▄▅▆▇█"


class Sample(NamedTuple):
    """How many events waited at a time."""

    at_s: float
    events: int | None
    """None if it was not known."""


class Lags:
    """Of each projection, how many events waited in the last two minutes."""

    def __init__(self) -> None:
        """Begin with nothing seen."""
        self._of: dict[tuple[str, Subscription], deque[Sample]] = {}

    def add(self, overview: Overview) -> None:
        """Remember what one look has shown. What is older than two minutes, or not there any more, is forgotten."""
        at_s, before = overview.at.timestamp(), self._of
        self._of = {}
        for of in overview.replica_sets:
            for each in of.projections:
                key = of.name, each.seen.subscription
                kept = self._of[key] = before.get(key, deque())
                kept.append(Sample(at_s, each.lag_events))
                while kept[0].at_s <= at_s - KEPT_S:
                    kept.popleft()

    def plot(self, replica_set: str, of: Subscription, width: int) -> str:
        """Return the last two minutes in so many characters, now at the right."""
        return bars(bins(self._of.get((replica_set, of), ()), width))


def bins(samples: Sequence[Sample], width: int) -> list[int | None]:
    """Return the largest number of each of `width` equal times, the last one with the last sample; None without one.

    The times begin at multiples of their length, so what is past moves from bin to bin and does not change its shape.
    """
    found: list[int | None] = [None] * width
    if not samples or not width:
        return found
    length_s = KEPT_S / width
    last = samples[-1].at_s // length_s
    for at_s, events in samples:
        index = width - 1 - int(last - at_s // length_s)
        if events is not None and index >= 0:
            found[index] = max(events, found[index] or 0)
    return found


def bars(numbers: Sequence[int | None]) -> str:
    """Return a bar for each number, the largest as high as a line; 0, and only 0, is the lowest. Blank for None."""
    most = max((number for number in numbers if number is not None), default=0)
    return "".join(UNKNOWN if number is None else _BARS[_height(number, most)] for number in numbers)


def _height(number: int, most: int) -> int:
    return max(round(number * (len(_BARS) - 1) / most), 1) if number else 0
