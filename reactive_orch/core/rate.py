"""How often something happens of late, from counts that are looked at now and then."""

from __future__ import annotations

HALF_S = 5.0
"""What was seen so long ago counts half as much as what is seen now."""

LEAST_PER_S = 0.05
"""A rate falls for ever and is never none; below one event in twenty seconds it says nothing of what is to come."""


class Rate:
    """Events in a second."""

    __slots__ = ("_at_s", "_count", "_per_s")

    def __init__(self) -> None:
        """Start without having seen anything."""
        self._count = 0
        self._at_s: float | None = None
        self._per_s: float | None = None

    @property
    def per_s(self) -> float:
        """The rate as of the last look; 0 before the second."""
        return self._per_s or 0.0

    def seen(self, count: int, now_s: float) -> float:
        """Return the rate, after so many in all by this moment of a clock; 0 before the second look.

        A count that has become smaller is one that has begun anew.
        """
        before, since_s, self._count, self._at_s = self._count, self._at_s, count, now_s
        if since_s is None or now_s <= since_s:
            return self.per_s
        fresh = max(count - before, 0) / (now_s - since_s)
        old = 0.5 ** ((now_s - since_s) / HALF_S)
        per_s = fresh if self._per_s is None else old * self._per_s + (1 - old) * fresh
        self._per_s = per_s
        return per_s
