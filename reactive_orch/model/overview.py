"""How all of it stands: what one look at the database shows of logs, replica sets, workers and projections.

`…Seen` is what the rows say. `…Overview` is what that means together, as `status` shows it: `core.overview` makes it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from reactive_orch.model.account import Account
    from reactive_orch.model.log import Holder, LogName, Position, Subscription
    from reactive_orch.model.membership import MemberId, RestingState


@dataclass(frozen=True, slots=True, kw_only=True)
class LogSeen:
    """A log."""

    name: LogName
    partitions: int
    head: Position
    holders: Sequence[Holder]
    """Open transactions that may have drawn a position, the oldest first."""
    refusal: str | None
    """Why it cannot be read; None if it can."""
    slowest: Position | None
    """The lowest saved position of all projections, whatever their replica sets; None without any."""
    first_waiting: Position | None
    """The first event that waits with a failing key of any of them; None when none waits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSeen:
    """A member of a replica set. Ages are in seconds, by the database's clock."""

    id: MemberId
    replica_set: str
    name: str
    """Of its process: host, process id, and something that is drawn at its start."""
    state: str
    """As a member: waiting, active, leaving."""
    connected: bool
    """It has its lock."""
    stale: bool
    heartbeat_age_s: float
    stale_after_s: float
    """After so long without a heartbeat the others remove it."""
    lacks: Sequence[str]
    """The projections of its replica set that it does not run: refused, or it has stepped down, or its code has not got
    them."""
    account: Account | None
    """What it says of itself; None before its first heartbeat."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RestSeen:
    """Why a projection does not run."""

    state: RestingState
    reason: str
    by: str
    """Who has paused it, or the worker that has halted or suspended it."""
    since: datetime
    age_s: float
    tried_at: datetime | None
    """When a suspended one is tried again; None for the others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProjectionSeen:
    """A projection of a replica set."""

    replica_set: str
    subscription: Subscription
    rest: RestSeen | None
    """None while it runs."""
    saved: Sequence[Position]
    """Partition by partition, up to where its checkpoints have been saved."""
    owners: Sequence[MemberId]
    """Partition by partition, whose it is; 0 for nobody, empty before the first generation."""
    served: bool
    """A member runs it."""
    serial_until: datetime | None
    """Its batches go one at a time up to then, after a deadlock; None if they do not."""
    proposed: str | None
    """The filter with which a worker was refused, as JSON."""
    start: str
    start_position: Position
    replays_to: Position | None
    """There it will have handled all again; None while nothing comes again."""
    leaves_replayed_out: bool
    exclusive: bool
    failing_keys: int
    parked_keys: int
    """Those of the failing keys that wait for somebody."""
    waiting_events: int
    """Behind failed ones, these included."""
    parked_events: int
    """Those of parked keys."""
    failing_s: float
    """For how long the first of the failing keys has been one; 0 without any."""
    last_error: str | None
    """Of the failing key that has failed last: the error's type and its text; None without any."""
    oldest_s: float | None
    """The age of the first event behind what has been saved, whatever its kind; None without one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationSeen:
    """A generation that a replica set has, or has had."""

    number: int
    reason: str
    subjects: Sequence[int]
    moved: int
    age_s: float
    complete_s: float | None
    """How long it took until all had adopted it; None while they have not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionsSeen:
    """How many connections there are where their number is limited, this look's own included."""

    of: Literal["server", "database", "role"]
    name: str
    """Empty for the server."""
    used: int
    most: int
    """For whoever is no superuser and has no reserved ones."""
    reserved: int
    """Besides: for superusers, and for roles with pg_use_reserved_connections."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """All that one look brought back."""

    at: datetime
    """By the database's clock."""
    logs: Sequence[LogSeen]
    generations: dict[str, GenerationSeen | None]
    """By replica set; None before the first."""
    workers: Sequence[WorkerSeen]
    projections: Sequence[ProjectionSeen]
    before: Mapping[str, Sequence[GenerationSeen]] = field(default_factory=dict)
    """By replica set, the generations before the one it has now, the last first; as many as were asked for."""
    connections: Sequence[ConnectionsSeen] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class LogOverview:
    """How a log stands."""

    seen: LogSeen
    settled: Position | None
    """None where no worker that lives says it, and a writer is at work."""
    events_per_s: float | None
    """None where no worker says it."""
    needed_after: Position | None
    """No projection needs the events up to here any more; None where that is not known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerOverview:
    """How a worker stands."""

    seen: WorkerSeen
    state: str
    """As it says itself; as the member's row says before its first heartbeat."""
    partitions: int
    """Over all projections."""
    uptime_s: float | None
    """None before its first heartbeat."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProjectionOverview:
    """How a projection stands."""

    seen: ProjectionSeen
    state: Literal["running", "paused", "halted", "suspended", "refused", "unserved"]
    served: bool
    """A worker that lives runs it."""
    lag_events: int | None
    """How many settled events are still to come, if each partition has as many as the others and all are wanted; None
    where nobody who lives knows how far the log is settled, and events wait."""
    lag_most: int | None
    """So many positions are behind the slowest partition, settled or not; None where the log is not known."""
    lag_s: float | None
    """The age of the oldest event that is still to come; None where it is not known whether that is settled."""
    told_lag_events: int | None
    """The same as workers told it with their last heartbeats. What has been settled since may be handled by now, or
    not: who asks whether all is done counts it; a curve does not."""
    told_lag_s: float | None
    events_per_s: float
    eta_s: float | None
    """When it will have caught up, at this rate; 0 if it has, None if that is not to be said."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaSetOverview:
    """How a replica set stands."""

    name: str
    generation: GenerationSeen | None
    workers: Sequence[WorkerOverview]
    projections: Sequence[ProjectionOverview]
    before: Sequence[GenerationSeen] = ()
    """Generations before the one it has now, the last first."""

    @property
    def generations(self) -> list[GenerationSeen]:
        """All that are known, the last first."""
        return [each for each in (self.generation, *self.before) if each is not None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Overview:
    """How all of it stands."""

    at: datetime
    logs: Sequence[LogOverview]
    replica_sets: Sequence[ReplicaSetOverview]
    connections: Sequence[ConnectionsSeen] = ()
