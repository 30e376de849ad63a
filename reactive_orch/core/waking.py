"""When writers are to ring: by the log's rate (protocol 6.2).

A bell costs the writers (docs/decisions/the-bell.md: with 32 of them and a flush of 1 ms, 21,541 transactions a second
become 750), and it gives nothing to readers that are busy. So it is armed while little is written and disarmed while
much is. It is not armed by "I found nothing": with several readers somebody always finds nothing, the bell throttles
the writers, and the throttled writers keep the readers idle, for ever.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from reactive_orch.model import Position

ARM_BELOW_PER_S = 100.0
DISARM_ABOVE_PER_S = 200.0
"""Two limits, so that a rate near one of them does not toggle the bell."""

DISARM_QUEUE = 2
"""So many writers in line for the bell are too many, whatever the rate: where a flush takes longer than 5 ms, the line
itself keeps the rate below the limit above, and it would never end."""

WINDOW_S = 0.25
"""The rate is that of the last window of at least this length: short enough to follow a burst's beginning and end."""

LOOK_S_PER_RATE = 15e-6
LOOK_LEAST_S, LOOK_MOST_S, LOOK_CROWD_MOST_S = 0.003, 0.020, 0.050
"""How far apart the looks are while nobody rings. They follow the rate, up to LOOK_MOST_S; but they are at least
LOOK_LEAST_S for each reader, up to LOOK_CROWD_MOST_S. Each look, with the batch it leads to, takes about a millisecond
of processor time and a flush from the writers, and the looks of all readers add up. After a few milliseconds more the
batch is larger."""


@dataclass(frozen=True, slots=True)
class Waking:
    """Whether writers are to ring, and since when how much was written."""

    armed: bool = True
    since_s: float = 0.0
    since: Position | None = None
    rate: float = 0.0
    """Events a second in the last window."""

    def look_every_s(self, readers: int) -> float:
        """Return the time from one look to the next while nobody rings, in seconds, when so many processes look."""
        alone_s = min(self.rate * LOOK_S_PER_RATE, LOOK_MOST_S)
        return max(alone_s, min(LOOK_LEAST_S * readers, LOOK_CROWD_MOST_S))

    def observe(self, head: Position, now_s: float, *, disarmed: bool, queue: int = 0) -> Waking:
        """Return it after a look at the log's head; `now_s` is of any clock that only goes forward.

        `disarmed`: another reader has seen a high rate. `queue`: so many writers wait for each other because they ring.
        Either is believed for a window; then one's own rate decides.
        """
        disarmed = disarmed or queue >= DISARM_QUEUE
        if self.since is None or (self.armed and disarmed):
            return Waking(self.armed and not disarmed, now_s, head, self.rate)
        elapsed_s = now_s - self.since_s
        if elapsed_s < WINDOW_S:
            return self
        rate = (head - self.since) / elapsed_s
        limit = DISARM_ABOVE_PER_S if self.armed else ARM_BELOW_PER_S
        return Waking(rate < limit, now_s, head, rate)
