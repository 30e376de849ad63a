"""Hooks: told of the partitions that a worker has of a projection. For users, whose caches live with them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from reactive_orch.model.log import Partition, Position
    from reactive_orch.model.membership import Resting
    from reactive_orch.model.reports import Subject


class Hooks:
    """Extend it with those methods that you need; each does nothing here.

    They are called in the event loop, at once: they must not wait. One that raises ends its worker, as nobody knows
    then what is true of what it keeps; `Worker.run` raises the same. `subject` names replica set, projection and log.

    What handlers have learnt of a partition (of `event.partition`) after `took` holds until `lost`: nobody else has
    committed anything of the partition in between. So `lost` is told whenever that may not be so any more, be it that
    the partition goes to another worker, that a connection was lost, or that a batch was rolled back; if the worker
    goes on with it, `took` follows. As long as keys of a partition are failing, other workers may handle their events:
    then both are told after each of its batches.
    """

    def took(self, subject: Subject, partitions: frozenset[Partition]) -> None:
        """Hear that these partitions are this worker's: told before the first batch that has an event of them."""

    def lost(self, subject: Subject, partitions: frozenset[Partition]) -> None:
        """Forget what is kept of these partitions: told before the next batch of this worker that has one of them."""

    def parked(self, subject: Subject, position: Position, error: BaseException) -> None:
        """Hear that the event at this position was given up, and its key waits for a person; `error.__cause__` is why.

        Told by the worker that parked it, once that is committed; not if it dies just then.
        """

    def paused(self, subject: Subject, resting: Resting | None) -> None:
        """Hear that the projection rests, on all workers, or runs again: `resting` is None then."""

    def settled(self, subject: Subject, partitions: frozenset[Partition]) -> None:
        """Hear that this worker is through with a rebalance: these are all the partitions that it has now."""
