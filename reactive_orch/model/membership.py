"""Members, generations, and what is recorded of how they came about."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple, NewType, TypeAlias

from reactive_orch.incarnation import NEVER, Incarnation

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

    from reactive_orch.model.log import LogName, Partition, Subscription

MemberId = NewType("MemberId", int)
"""One membership of one worker, drawn from a sequence; also the key of its advisory lock. A server that has lost the
last ids gives them out again: only the id and the name of the process together say which member is meant."""

NOBODY = MemberId(0)
"""The owner of a partition that no living member can run."""


class MemberState(enum.Enum):
    """Where a member is in its life; the values are those of the column."""

    WAITING = "waiting"
    ACTIVE = "active"
    LEAVING = "leaving"


class WorkerState(enum.Enum):
    """Where a worker is in its life, as health and metrics say it."""

    STARTING = "starting"
    JOINING = "joining"
    REBALANCING = "rebalancing"
    SERVING = "serving"
    STANDBY = "standby"
    UNAVAILABLE = "database unavailable"
    STOPPING = "stopping"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One member as a snapshot shows it."""

    id: MemberId
    name: str
    """Of its process; drawn anew at every start, and part of its connections' application_name."""
    state: MemberState
    subscriptions: frozenset[Subscription]
    """What it can run."""
    lock_held: bool
    """Its advisory lock is held by the backend it recorded: its process lives and is connected."""
    dead: bool
    """Its lock is free, and that proves its death. It proves nothing if the server has started after the member's
    connection, nor while the tail of its process lives: then it may be on its way back."""
    stale: bool
    """It has sent no heartbeat for longer than it may."""
    heartbeat_age_s: float
    stale_after_s: float
    acknowledged: int
    """The last generation it has adopted."""


RestingState: TypeAlias = Literal["paused", "halted", "suspended"]
"""Of a projection in a replica set: by people; by a worker, since an event has failed for good; or by a worker, since
many keys have failed alike, until one that is tried now and then succeeds."""


class Resting(NamedTuple):
    """How a projection rests."""

    state: RestingState
    reason: str = ""
    """What may be told to anybody: why it is suspended. Other reasons hold values, and stay in the database."""

    def __str__(self) -> str:
        """Return it in words."""
        return f"{self.state}: {self.reason}" if self.reason else self.state


Owners: TypeAlias = "Mapping[Subscription, tuple[MemberId, ...]]"
"""Subscription → the owner of each partition, by index."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """A replica set as one statement saw it. In another incarnation the same number may mean another generation."""

    generation: int
    members: tuple[Member, ...]
    owners: Owners
    partitions: Mapping[LogName, int] = field(default_factory=dict)
    """Log → the number of its partitions."""
    reason: Reason | None = None
    """Why this generation was made; None before the first."""
    subjects: tuple[MemberId, ...] = ()
    """Who joined, left or was removed."""
    epochs: Mapping[Subscription, int] = field(default_factory=dict)
    """Subscription → its epoch: checkpoints loaded in an older one have been rewound since."""
    resting: Mapping[Subscription, Resting] = field(default_factory=dict)
    """Those that are not to run for now, and why."""
    exclusive: frozenset[Subscription] = frozenset()
    """Those that are not to be divided among members."""
    serial: Mapping[Subscription, float] = field(default_factory=dict)
    """Those whose batches go one at a time, and for how many seconds more."""
    asked: frozenset[Subscription] = frozenset()
    """Those of which a failing key is to be tried by another worker before it is parked."""
    traceparent: str | None = None
    """What all spans of this generation's trace are below that its writer has not sent."""
    created_at: datetime | None = None
    age_s: float = 0.0
    """How old this generation is, by the server's clock."""
    complete: bool = False
    moved: int = 0
    """Partitions that changed their owner with this generation."""
    incarnation: Incarnation = NEVER


class Reason(enum.Enum):
    """Why a generation was made; the values are those of the column and of the telemetry attribute."""

    JOIN = "join"
    LEAVE = "leave"
    DEATH = "death"
    STALE = "stale"
    CAPABILITY = "capability"


def why(reason: str, subjects: Iterable[int]) -> str:
    """Return a generation's reason and whom it is about, for people: `death of 3, 4`; nobody changes a capability."""
    about = ", ".join(map(str, subjects))
    return f"{reason} of {about}" if about else reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A new generation to write: valid only on top of generation `after`."""

    after: int
    reason: Reason
    subjects: tuple[MemberId, ...]
    admit: tuple[MemberId, ...]
    remove: tuple[MemberId, ...]
    owners: Owners
    """Only the subscriptions whose owners change."""
    moved: int
    """Partitions that change their owner, over all subscriptions."""

    def members_after(self, snapshot: Snapshot) -> int:
        """Return how many members there are once it is written on top of this snapshot."""
        return sum(member.id not in self.remove for member in snapshot.members)


class Written(NamedTuple):
    """What the statement that wrote a generation brings back; `overtaken`: the one before was not complete yet."""

    number: int
    created_at: datetime
    overtaken: bool


class Adopted(NamedTuple):
    """How a member adopted a generation: what made it look, and how long after that each step was done.

    A duration is None when there was nothing to finish, or to load. `gave`, `took` and `kept` count partitions.
    """

    source: str
    total_s: float
    finish_s: float | None
    load_s: float | None
    gave: int
    took: int
    kept: int


class Acknowledged(NamedTuple):
    """What an acknowledgement brings back: how late this member noticed; for the last one, a summary of all."""

    notify_s: float
    completed_at: datetime | None
    slowest: int | None
    kept: int | None
    notify_max_s: float | None
    finish_max_s: float | None
    load_max_s: float | None


@dataclass(slots=True)
class Turn:
    """One look of a member at its replica set: what woke it, and the times of its steps, in ns since 1970."""

    replica_set: str
    member: MemberId
    source: str
    noticed_ns: int
    observed_ns: int = 0
    """When the snapshot had come."""
    planned_ns: int = 0
    """When the change had been computed."""

    def age_s(self, now_ns: int) -> float:
        """How long ago it began."""
        return seconds(self.noticed_ns, now_ns)


@dataclass(slots=True, kw_only=True)
class AdoptionSteps:
    """When a member did what of an adoption, and what it was about."""

    turn: Turn
    snapshot: Snapshot
    finished_ns: int | None = None
    """When nothing was left of the lost partitions."""
    loaded_ns: int | None = None
    in_flight: int = 0
    """Lost partitions that a batch was working on."""
    row_wait_s: float = 0.0
    row_waited_for: Partition | None = None

    def adopted(self, now_ns: int, gave: int, took: int, kept: int) -> Adopted:
        """Return what is recorded of it with the acknowledgement."""
        start = self.turn.noticed_ns
        return Adopted(
            self.turn.source,
            self.turn.age_s(now_ns),
            seconds(start, self.finished_ns) if gave and self.finished_ns else None,
            seconds(start, self.loaded_ns) if took and self.loaded_ns else None,
            gave,
            took,
            kept,
        )


def seconds(start_ns: int, end_ns: int) -> float:
    """Return a duration; the wall clock may have been set back."""
    return max(end_ns - start_ns, 0) / 1_000_000_000


class GenerationRow(NamedTuple):
    """One row of `generations`: why it was made, who its members are, when it was complete."""

    number: int
    reason: str
    subjects: list[int]
    members: list[int]
    moved: int
    traceparent: str | None
    initiator: int
    wake_source: str
    noticed_at: datetime
    created_at: datetime
    completed_at: datetime | None


class AdoptionRow(NamedTuple):
    """How a member adopted a generation: when it noticed, had finished what it gave, loaded what it took."""

    member: int
    wake_source: str
    noticed_at: datetime
    finished_at: datetime | None
    loaded_at: datetime | None
    acknowledged_at: datetime
    gave: int
    took: int
    kept: int
