"""How many events a batch may have, so that its handlers are done with them in the time of one batch.

Read as many as were not handled, and most of what is read is read again and again.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Pace:
    """The pace of one lane's handlers."""

    most: int
    """Events in a batch, however fast they are handled."""
    events: int = 0
    """So many fit into a batch, as far as is known."""

    def __post_init__(self) -> None:
        """Take it that all of them fit."""
        self.events = self.most

    def committed(self, handled: int, planned: int) -> None:
        """Note how many events of a batch were handled in its time; one that was handled whole may be larger next."""
        self.events = max(handled, 1) if handled < planned else min(2 * self.events, self.most)
