"""What every lane of one projection on one worker has in common."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from reactive_orch.core import outage
from reactive_orch.core.fitness import Fitness
from reactive_orch.core.keys import Policy
from reactive_orch.core.suspicion import Suspects
from reactive_orch.model.middleware import ALONE, Around
from reactive_orch.model.reports import Subject
from reactive_orch.postgres import checkpoints
from reactive_orch.runtime.handling.hooked import Hooked

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from reactive_orch.config import Config
    from reactive_orch.errors import ProjectionFailed
    from reactive_orch.incarnation import Incarnation
    from reactive_orch.model import Projection, Subscription, Swap
    from reactive_orch.model.membership import Resting
    from reactive_orch.model.reports import Watchers
    from reactive_orch.postgres.database import Database
    from reactive_orch.runtime.handling.serial import Serial
    from reactive_orch.runtime.interruptions import Interruptions
    from reactive_orch.runtime.node import Node
    from reactive_orch.runtime.reading.follower import LogFollower


async def raised(error: ProjectionFailed, _: Incarnation) -> None:
    """End the worker with this error."""
    raise error


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """What every lane of one projection on one worker has in common."""

    node: Node
    replica_set: str
    projection: Projection
    generation: Callable[[], int] = int
    changed: Callable[[], None]
    """A lane let go of partitions, or forgot them."""
    idle: Callable[[], None]
    """A lane came to the end of the log, or rests."""
    resting: Callable[[], Resting | None] = lambda: None
    """Whether the projection rests, and how: its lanes begin no batch then."""
    outage: outage.Outage = field(default_factory=outage.Outage)
    """Whether what the handler needs is away."""
    until_idle: bool = False
    """Somebody waits for the end, and for how it ends: an event that fails for good ends the worker."""
    halt: Callable[[ProjectionFailed, Incarnation], Awaitable[None]] = raised
    """Let nobody go on with the projection: an event has failed for good and is not parked, or many fail alike, as was
    found out in this incarnation."""
    serial: Serial
    """Whether its batches go one at a time."""
    interruptions: Interruptions
    """What the loops of this projection pass over."""
    fitness: Fitness = field(default_factory=Fitness)
    """Whether what fails here succeeds elsewhere."""
    others: Callable[[], bool] = lambda: False
    """Whether other members run it, too, and may act on any of its partitions."""
    step_down: Callable[[], None] = lambda: None
    """Leave it to the others for a while."""
    suspects: Suspects = field(default_factory=Suspects)
    """Its partitions whose last owner was lost without a word."""
    around: Around = ALONE
    """The worker's middleware, and inside it the projection's."""
    hooked: Hooked = field(default_factory=Hooked)
    """Those who are told of its partitions."""

    @property
    def subject(self) -> Subject:
        """What reports of it are about."""
        return Subject(self.replica_set, *self.subscription)

    @property
    def subscription(self) -> Subscription:
        """What it runs."""
        return self.projection.subscription

    @property
    def watchers(self) -> Watchers:
        """Who is told."""
        return self.node.watchers

    @property
    def config(self) -> Config:
        """How this process runs."""
        return self.node.config

    @property
    def timeout_s(self) -> float:
        """How long one call of the handler may take."""
        own = self.projection.timeout
        return self.config.handler_timeout_s if own is None else own

    @property
    def policy(self) -> Policy:
        """What becomes of events that fail."""
        own, config = self.projection, self.config
        return Policy(config.retries if own.retries is None else own.retries, own.on_error or config.on_error)

    @property
    def database(self) -> Database:
        """The database of the checkpoints."""
        return self.node.database

    @property
    def follower(self) -> LogFollower:
        """What knows the settled end of the log that it reads."""
        return self.node.logs[self.projection.log]

    async def save(self, swaps: Sequence[Swap], incarnation: Incarnation) -> None:
        """Move checkpoints over stretches without events, as read in this incarnation.

        Raises Superseded when that is over: elsewhere there may be events.
        """
        if swaps:
            async with self.database.coordination(incarnation) as connection:
                await checkpoints.save(connection, self.replica_set, self.subscription, swaps)
