"""The hooks of one projection on one worker: what they are told of its partitions, whichever lane has them."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from reactive_orch.model.reports import Subject

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from reactive_orch.model import Hooks, Partition, Position
    from reactive_orch.model.membership import Resting

_NOBODY = Subject("", "", "")


class Hooked:
    """Tells all of them. What they raise gets out: it ends the worker."""

    def __init__(self, subject: Subject = _NOBODY, hooks: Sequence[Hooks] = ()) -> None:
        """Start without partitions."""
        self._subject, self._hooks = subject, hooks
        self._held: set[Partition] = set()

    def took(self, partitions: Collection[Partition]) -> None:
        """Tell that these are this worker's."""
        self._held.update(partitions)
        self._tell_took(frozenset(partitions))

    def lost(self, partitions: Collection[Partition]) -> None:
        """Tell that these are this worker's no more, or that it is to load them again."""
        self._held.difference_update(partitions)
        self._tell_lost(frozenset(partitions))

    def doubt(self, partitions: Collection[Partition]) -> None:
        """Let what is known of these be forgotten; those that are this worker's stay so."""
        self._tell_lost(frozenset(partitions))
        self._tell_took(self._held.intersection(partitions))

    @contextlib.contextmanager
    def visiting(self, partition: Partition) -> Iterator[None]:
        """Have a batch of a partition in the block that may be another worker's, and of which nothing stays."""
        if partition not in self._held:
            self._tell_took(frozenset({partition}))
        try:
            yield
        finally:
            self.doubt({partition})

    def end(self) -> None:
        """Tell that nothing is this worker's any more."""
        self.lost(frozenset(self._held))

    def parked(self, position: Position, error: BaseException) -> None:
        """Tell that an event was given up."""
        for each in self._hooks:
            each.parked(self._subject, position, error)

    def paused(self, resting: Resting | None) -> None:
        """Tell how the projection rests; None: it runs."""
        for each in self._hooks:
            each.paused(self._subject, resting)

    def settled(self) -> None:
        """Tell that this worker has all that the present generation gives it, and no more."""
        for each in self._hooks:
            each.settled(self._subject, frozenset(self._held))

    def _tell_took(self, partitions: Collection[Partition]) -> None:
        if partitions:
            for each in self._hooks:
                each.took(self._subject, frozenset(partitions))

    def _tell_lost(self, partitions: frozenset[Partition]) -> None:
        if partitions:
            for each in self._hooks:
                each.lost(self._subject, partitions)
