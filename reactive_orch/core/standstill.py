"""For how long partitions have stood still: settled events wait for them, and their checkpoints do not move.

Fed with a look about every second. What counts is a checkpoint that moved: a window that is read, lost and read again
for ever is no progress. Time in which a partition is excused, as while a handler runs, is left out, but does not begin
the count anew: so a slow handler never stands still, and a batch that is begun and lost again and again does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

    from reactive_orch.model import Checkpoint, Partition

LOOK_COUNTS_MOST_S = 2.0
"""A look that comes later than this was held up, and so was all the rest: by a stopped process or a busy handler."""


class Standing(NamedTuple):
    """One partition that a worker should handle, at the moment of a look."""

    checkpoint: Checkpoint | None
    """None: the worker does not hold it."""
    waits: bool
    """Settled events wait for it, as far as is known."""
    excused: bool
    """Whatever keeps it is in order, or is told in other words."""


class Standstill:
    """The partitions of one projection on one worker."""

    def __init__(self) -> None:
        """Begin with nothing seen."""
        self._known: dict[Partition, Checkpoint] = {}
        self._stood_s: dict[Partition, float] = {}

    @property
    def longest_s(self) -> float:
        """How long the partition has stood still that has done so for longest, in seconds; 0 when none does."""
        return max(self._stood_s.values(), default=0.0)

    def look(self, partitions: Mapping[Partition, Standing], passed_s: float) -> None:
        """Look at all partitions it should handle, `passed_s` seconds after the last look."""
        counts_s = min(passed_s, LOOK_COUNTS_MOST_S)
        for partition in self._stood_s.keys() - partitions.keys():
            del self._stood_s[partition]
            self._known.pop(partition, None)
        for partition, standing in partitions.items():
            stood_s = self._stood_s.get(partition, 0.0)
            if self._moved(partition, standing.checkpoint) or not standing.waits:
                self._stood_s[partition] = 0.0
            else:
                self._stood_s[partition] = stood_s if standing.excused else stood_s + counts_s

    def _moved(self, partition: Partition, checkpoint: Checkpoint | None) -> bool:
        if checkpoint is None or checkpoint == self._known.get(partition):
            return False
        self._known[partition] = checkpoint
        return True
