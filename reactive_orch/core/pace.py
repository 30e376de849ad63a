"""How many events a batch may have, and whether a lane lingers before the next one, so that more come together.

A batch has as many events as its handlers can do in the time of one batch. If more were read, the rest would be read
again for the next batch, and again. And while swaps are slow, fewer and larger batches cost less.
"""

from __future__ import annotations

from dataclasses import dataclass

SWAP_SLOW_S, LINGER_MOST_S = 0.005, 0.100
"""After a swap slower than the first, and no full batch, a lane waits as long as the swap took (at most the second), so
that more events share the next one. Swaps get slow while somebody's old snapshot keeps the dead versions of the
checkpoints: fewer, larger batches then cost less and leave fewer of them behind."""


@dataclass(slots=True)
class Pace:
    """The pace of one lane's handlers."""

    most: int
    """Events in a batch, however fast they are handled."""
    events: int = 0
    """So many fit into a batch, as far as is known."""
    linger_s: float = 0.0
    """How long to wait before the next window, in seconds."""

    def __post_init__(self) -> None:
        """Begin with the most: nothing is known yet."""
        self.events = self.most

    def committed(self, handled: int, planned: int, *, swap_s: float, full: bool) -> None:
        """Note a committed batch: how many of its events were handled in its time, and how long its swap took.

        One that was handled whole may be larger next time. `full`: it had as many events as it may have.
        """
        self.events = max(handled, 1) if handled < planned else min(2 * self.events, self.most)
        if swap_s > SWAP_SLOW_S and not full:
            self.linger_s = min(swap_s, LINGER_MOST_S)
