"""Many that join or leave at once: few generations instead of one for each.

A change admits all that wait and removes all that leave. So a join or leave that meets a generation not yet complete
waits for a moment: by then the crowd has gathered. Deaths never wait.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from reactive_orch.incarnation import NEVER
from reactive_orch.model import Reason

if TYPE_CHECKING:
    from reactive_orch.model import Change, Snapshot
    from reactive_orch.runtime.wakeup import Wakeup

GATHER_S = 0.25
"""At most so long, whoever keeps the generation from settling."""
LOOK_S = 0.02

_PATIENT = frozenset({Reason.JOIN, Reason.LEAVE})


class Crowd:
    """One worker's patience."""

    def __init__(self) -> None:
        """Start with all of it."""
        self._generation = (0, NEVER)
        self._since_s = 0.0

    async def gathers(self, wakeup: Wakeup, snapshot: Snapshot, new: Change) -> bool:
        """Tell whether this change is to be looked at again, after a moment (or the wake-up) has been waited for."""
        waits = self._waits(snapshot, new)
        if waits:
            await wakeup.wait(LOOK_S)
        return waits

    def _waits(self, snapshot: Snapshot, new: Change) -> bool:
        if snapshot.complete or not snapshot.generation or new.reason not in _PATIENT:
            return False
        generation = snapshot.generation, snapshot.incarnation
        if generation != self._generation:
            self._generation, self._since_s = generation, time.monotonic()
        return time.monotonic() - self._since_s < GATHER_S
