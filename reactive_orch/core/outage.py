"""When it is not the events that fail, but something that the handlers need: a mail server that is away, a full disk.

Then many different keys fail alike, one after the other, and nothing succeeds between them. Their projection is
suspended instead of parking thousands: it rests, and after pauses that grow one failing event is tried.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from reactive_orch.model import Position

ALIKE_MAX = 10
"""So many keys that fail alike, with no success between them, are no accident."""

PAUSES_S = (5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 300.0)
"""Before each trial, the first since the projection has run well first."""


@dataclass(slots=True)
class Outage:
    """The failures of one projection on one worker since its last success, as long as they are alike."""

    how: str = ""
    """The type of the error and the user's innermost line."""
    positions: set[Position] = field(default_factory=set)
    """The first waiting event of each key that has failed so."""
    since: float = 0.0
    """When the first of them failed."""

    def failed(self, position: Position, how: str, now: float) -> bool:
        """Note that the first waiting event of a key has failed; return whether too many have."""
        if how != self.how:
            self.how, self.positions, self.since = how, set(), now
        self.positions.add(position)
        return len(self.positions) >= ALIKE_MAX

    def over(self) -> None:
        """Begin anew: something has succeeded, or the projection is suspended."""
        self.how, self.positions = "", set()

    @property
    def reason(self) -> str:
        """What is said about it. It holds no values."""
        return f"{len(self.positions)} keys in a row have failed alike: {self.how}"
