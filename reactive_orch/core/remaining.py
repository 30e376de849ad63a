"""How many events a worker still has to handle, as far as that can be told from positions.

Positions are what is known of a log; how many of them are events that pass a filter shows as they are read.
"""

from __future__ import annotations

KEPT = 0.8
"""Of what was seen before, at each look: a gap that was passed at once, or a stretch of other events, says little."""


class Remaining:
    """Of one projection on one worker."""

    __slots__ = ("_behind", "_handled", "_held", "_passed", "_read")

    def __init__(self) -> None:
        """Begin with nothing seen."""
        self._behind = self._handled = 0
        self._read = self._passed = 0.0
        self._held: int | None = None

    def seen(self, handled: int, behind: int, held: int) -> int:
        """Return about how many events are left.

        `handled`: events so far. `behind`: positions not read yet, summed over the `held` partitions. What changes
        together with the partitions says nothing of how many events there are to a position.
        """
        if held == self._held and behind < self._behind:
            self._read = KEPT * self._read + self._behind - behind
            self._passed = KEPT * self._passed + handled - self._handled
        self._handled, self._behind, self._held = handled, behind, held
        return round(behind * self._passed / self._read) if self._read else behind
