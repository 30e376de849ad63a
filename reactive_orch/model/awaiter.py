"""Who waits until positions are handled: an application's session, as workers are told of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Collection

    from reactive_orch.model.log import Partition, Position, Subscription


class Wanted(NamedTuple):
    """What somebody waits for."""

    replica_set: str
    subscription: Subscription
    positions: tuple[Position, ...]
    """The events that a projection is to have handled."""
    whole: bool
    """All of the projection is meant, up to these."""


class Awaiter(NamedTuple):
    """A session that waits until partitions of a projection have been read up to a position, and saved."""

    replica_set: str
    subscription: Subscription
    session: int
    """The number by which it is answered, drawn at random."""
    position: Position
    partitions: frozenset[Partition] | None
    """None: all of them."""

    def wants(self, held: Collection[Partition]) -> Collection[Partition]:
        """Return those of these partitions that it waits for."""
        return held if self.partitions is None else self.partitions.intersection(held)


class Standing(NamedTuple):
    """Why a position is not handled, by what the tables say."""

    found: bool
    """There is an event at the position."""
    checkpoint: Position | None
    """How far its partition is, or the slowest one if all of it is meant; None if no worker has ever run it."""
    workers: int
    """How many run it now."""
    state: str | None
    """Of the projection: `running`, or how it rests; None as for the checkpoint."""
    key_state: str | None
    """`retrying` or `parked` if an event waits with a failing key; None if none does."""
    error_type: str | None
    """What that key's last attempt raised."""
