"""What a lane learns of new events while it rests at the end of the log (protocol 6.7)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable
    from collections.abc import Set as AbstractSet

    from reactive_orch.model import Partition
    from reactive_orch.runtime.handling.lane_windows import LaneWindows
    from reactive_orch.runtime.reading.fresh import Fresh
    from reactive_orch.runtime.reading.window_cache import Fetched
    from reactive_orch.runtime.wakeup import Wakeup


class Group(Protocol):
    """What handles a lane's events together with those of others, while the lane rests (protocol 3.10)."""

    @property
    def has_it(self) -> bool:
        """Whether it has the lane now."""
        ...

    def takes(self, fetched: Fetched) -> bool:
        """Take the lane, which is to handle this, if that may be."""
        ...

    async def leave(self) -> None:
        """Give the lane back, when the batch in hand is over."""


@dataclass(frozen=True, slots=True, eq=False)
class Ear:
    """One lane's, for one rest."""

    partitions: AbstractSet[Partition]
    """What the lane reads, as it changes."""
    windows: LaneWindows
    wakeup: Wakeup
    pass_over: Callable[[Fetched], None] | None
    """Puts a window without events behind the lane; None if the lane has to wake for that."""
    group: Group | None

    def hear(self, fresh: Fresh | None) -> bool:
        """Learn that more is settled. If it is known that no event of the lane is among it, the lane rests on."""
        if self.group is not None and self.group.has_it:
            return True  # which reads on by itself
        fetched = None if fresh is None else self.windows.among(fresh)
        if fetched is not None and not fetched.events and self.pass_over is not None:
            self.pass_over(fetched)
            if self.windows.window() is None:
                return True
        elif fetched is not None:
            if fetched.events and self.group is not None and self.group.takes(fetched):
                return True
            self.windows.give(fetched)
        self.wakeup.set()
        return False
