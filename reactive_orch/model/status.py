"""How it stands: what a process can say of itself at any time, from memory. Made when somebody asks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

    from reactive_orch.model.log import LogName, Position, Subscription
    from reactive_orch.model.membership import MemberId, MemberState, RestingState, WorkerState
    from reactive_orch.model.problems import Problem


@dataclass(frozen=True, slots=True, kw_only=True)
class ProjectionStatus:
    """How far one worker is with one projection."""

    subscription: Subscription
    lag: int
    """Positions between the settled end of the log and the slowest partition."""
    held: int
    """Partitions that it has."""
    behind: int
    """Positions between the settled end of the log and what has been read, summed over its partitions."""
    lag_s: float
    """How old the oldest event is that is not handled yet, in seconds; 0 at the settled end."""
    events_handled: int
    """In batches committed since the worker began."""
    busy_s: float
    """For how many seconds its lanes have had batches in hand since the worker began, summed over them."""
    lanes: int
    """How many of its lanes have partitions now."""
    standstill_s: float
    """For how long settled events have waited without any progress, in seconds."""
    failing_keys: int
    """Keys of its partitions that wait behind a failed event, as last seen."""
    one_at_a_time: bool
    """Whether its batches go one at a time, after a deadlock of handlers."""
    owned: int
    """Partitions that it has and is to have."""
    awaited: int
    """Partitions that it is to have and others hold still."""
    leaving: int
    """Partitions that it is not to have any more, in a last batch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaSetStatus:
    """A replica set, as one worker has last seen it."""

    generation: int
    complete: int
    """The last generation that is known to be complete."""
    members: Mapping[MemberState, int]
    partitions: int
    """Over all projections."""
    unserved: Mapping[Subscription, bool]
    """Whether a projection is run by no worker, although it does not rest."""
    resting: Mapping[Subscription, RestingState | None]
    """How a projection rests; None while it does not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerStatus:
    """One worker."""

    replica_set: str
    member: MemberId | None
    """None while it is none."""
    state: WorkerState
    seen: ReplicaSetStatus | None
    """None before it has looked."""
    projections: tuple[ProjectionStatus, ...]


class LogStatus(NamedTuple):
    """How far a process may read one log."""

    log: LogName
    settled: Position | None
    """None while that is unknown."""
    held_s: float
    """For how long writers have held the frontier, in seconds; 0 when it is free, or out of sight."""
    holders: Mapping[str, int]
    """How many transactions the frontier waits for, by kind: `running`, `prepared`."""


class PoolStatus(NamedTuple):
    """The connections of one pool."""

    used: int
    idle: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """One process."""

    listening_s: float
    """How old the connection is that listens; 0 while there is none."""
    queue_usage: float
    """How full the server's queue of notifications was at the last heartbeat, 0 to 1."""
    logs: tuple[LogStatus, ...]
    pools: Mapping[str, PoolStatus]
    workers: tuple[WorkerStatus, ...]
    problems: tuple[Problem, ...]
    """What its workers know of, as last looked, a moment ago."""
