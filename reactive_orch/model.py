"""The vocabulary: events, projections, members, generations. Values only, no I/O.

Terms are those of the README and of every log line: a *replica set* is the group of *workers* that share the log;
a worker that has joined is a *member*; each change of members or assignment makes a *generation*; the log is divided
into *partitions*; a *projection* has one *checkpoint* per partition.
"""

from __future__ import annotations

import enum
import inspect
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, NewType, TypeAlias, cast

from reactive_orch.errors import ConfigError
from reactive_orch.incarnation import NEVER, Incarnation

if TYPE_CHECKING:
    from datetime import datetime
    from uuid import UUID

MemberId = NewType("MemberId", int)
"""One membership of one worker: drawn from a sequence, never reused; also the key of its advisory lock."""

Partition: TypeAlias = int
"""0 … partitions-1, from the hash of the aggregate's id."""

Position: TypeAlias = int
"""A place in the log: `global_position`; 0 is before the first event."""

NOBODY = MemberId(0)
"""The owner of a partition that no living member can run."""

NAME_BYTES_MAX = 63
"""PostgreSQL's limit for identifiers, kept for names that reach application_name, channels and metric labels."""


class Event(NamedTuple):
    """One row of the log, as handlers see it. The fields are the columns, in their order."""

    global_position: int
    partition: int
    bounded_context: str
    aggregate_type: str
    aggregate_id: str
    aggregate_version: int
    event_id: UUID
    event_type: str
    event_version: int
    payload: bytes
    trace_id: str | None
    correlation_id: str | None
    causation_id: str | None
    metadata_json: str
    created_at: datetime

    def json(self) -> Any:
        """Return the payload decoded as JSON. Raises ValueError when it is not JSON."""
        return json.loads(self.payload)

    @property
    def metadata(self) -> dict[str, Any]:
        """The metadata column, decoded at each access: most handlers never look, so reading does not pay for it."""
        return cast("dict[str, Any]", json.loads(self.metadata_json))


class Expected(enum.Enum):
    """What an append may demand of the aggregate's stream, besides an exact version (an int)."""

    ANY = "any"
    NO_STREAM = "no stream"


@dataclass(frozen=True, slots=True, kw_only=True)
class NewEvent:
    """An event to append. `payload` is bytes, or anything JSON can carry."""

    aggregate_type: str
    aggregate_id: str
    event_type: str
    payload: Any = b""
    bounded_context: str = "default"
    event_version: int = 1
    event_id: UUID | None = None
    trace_id: str | None = None
    correlation_id: str | None = None
    causation_id: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def payload_bytes(self) -> bytes:
        """Return the payload as stored: bytes as they are, all else as compact JSON.

        Raises ValueError or TypeError for what JSON cannot carry.
        """
        if isinstance(self.payload, bytes):
            return self.payload
        return json.dumps(self.payload, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


EventHandler: TypeAlias = Callable[[Event, Any], Awaitable[None]]
BatchHandler: TypeAlias = Callable[[Sequence[Event], Any], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Filter:
    """Which events a projection wants; None means all. Evaluated in SQL, recorded with the checkpoints."""

    aggregate_types: tuple[str, ...] | None = None
    bounded_contexts: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Projection:
    """A handler and what it is fed. Made by the `projection` decorator; calling it calls the handler."""

    name: str
    handler: EventHandler | BatchHandler
    batch: bool = False
    filter: Filter = Filter()
    concurrency: int = 1

    def __call__(self, events: Any, tx: Any) -> Awaitable[None]:
        """Call the handler, so that a decorated function can be tested like a plain one."""
        return self.handler(events, tx)


def projection(
    name: str,
    *,
    batch: bool = False,
    aggregate_types: Sequence[str] | None = None,
    bounded_contexts: Sequence[str] | None = None,
    concurrency: int = 1,
) -> Callable[[Callable[..., Awaitable[None]]], Projection]:
    """Make an async function a projection.

    The function gets `(event, tx)`, or with `batch=True` `(events, tx)`; `tx` is an asyncpg connection inside the
    transaction that also moves the checkpoint. `concurrency` is the number of lanes (tasks) its partitions are dealt
    to.

    Raises ConfigError for a name that is empty or longer than 63 bytes, for a filter that can match nothing, and for a
    function that is not async.
    """
    check_name("projection", name)
    for what, wanted in (("aggregate_types", aggregate_types), ("bounded_contexts", bounded_contexts)):
        if isinstance(wanted, str) or (wanted is not None and not wanted):
            msg = f"projection {name!r}: {what} must be a list of names, not {wanted!r}"
            raise ConfigError(msg)

    def decorate(handler: Callable[..., Awaitable[None]]) -> Projection:
        if not _is_async(handler):
            called = getattr(handler, "__qualname__", None) or handler
            msg = f"projection {name!r}: the handler {called} is not async; write `async def`"
            raise ConfigError(msg)
        if concurrency < 1:
            msg = f"projection {name!r}: concurrency must be at least 1, not {concurrency}"
            raise ConfigError(msg)
        only = Filter(_sorted(aggregate_types), _sorted(bounded_contexts))
        return Projection(name, handler, batch, only, concurrency)

    return decorate


def check_name(what: str, name: str) -> None:
    """Raise ConfigError unless `name` has 1 to 63 bytes and only printable characters."""
    if not 1 <= len(name.encode()) <= NAME_BYTES_MAX or not name.isprintable():
        msg = f"{what} name {name!r}: give 1 to {NAME_BYTES_MAX} bytes of printable characters"
        raise ConfigError(msg)


def _is_async(handler: Callable[..., object]) -> bool:
    # An object with an async __call__ is as good as a function.
    return inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(getattr(handler, "__call__", None))  # noqa: B004


def _sorted(names: Sequence[str] | None) -> tuple[str, ...] | None:
    return None if names is None else tuple(sorted(set(names)))


class MemberState(enum.Enum):
    """Where a member is in its life; the values are those of the column."""

    WAITING = "waiting"
    ACTIVE = "active"
    LEAVING = "leaving"


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One member as a snapshot shows it."""

    id: MemberId
    name: str
    """Of its process; drawn anew at every start, and part of its connections' application_name."""
    state: MemberState
    projections: frozenset[str]
    lock_held: bool
    """Its advisory lock is held by the backend it recorded: its process lives and is connected."""
    dead: bool
    """Its lock is free and that proves death. Not while the server has started after the member's connection, nor while
    another connection of its process lives: give it time."""
    stale: bool
    """It has sent no heartbeat for longer than it may."""
    heartbeat_age_s: float
    stale_after_s: float
    acknowledged: int
    """The last generation it has adopted."""


Owners: TypeAlias = Mapping[str, tuple[MemberId, ...]]
"""Projection → the owner of each partition, by index."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """A replica set as one statement saw it, in an incarnation: in another the same number means another generation."""

    generation: int
    members: tuple[Member, ...]
    owners: Owners
    reason: Reason | None = None
    """Why this generation was made; None before the first."""
    subjects: tuple[MemberId, ...] = ()
    """Who joined, left or was removed."""
    epochs: Mapping[str, int] = field(default_factory=dict)
    """Projection → its epoch: checkpoints loaded in an older one have been rewound since."""
    traceparent: str | None = None
    """The root of this generation's trace."""
    created_at: datetime | None = None
    age_s: float = 0.0
    """How old this generation is, by the server's clock."""
    complete: bool = False
    moved: int = 0
    incarnation: Incarnation = NEVER


class Reason(enum.Enum):
    """Why a generation was made; the values are those of the column and of the telemetry attribute."""

    JOIN = "join"
    LEAVE = "leave"
    DEATH = "death"
    STALE = "stale"
    CAPABILITY = "capability"


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A new generation to write: valid only on top of generation `after`."""

    after: int
    reason: Reason
    subjects: tuple[MemberId, ...]
    admit: tuple[MemberId, ...]
    remove: tuple[MemberId, ...]
    owners: Owners
    """Only the projections whose owners change."""
    moved: int
    """Partitions that change their owner, over all projections."""


class Written(NamedTuple):
    """What the statement that wrote a generation brings back; `overtaken`: the one before was not complete yet."""

    number: int
    created_at: datetime
    overtaken: bool


class Adopted(NamedTuple):
    """How a member adopted a generation: what made it look; durations from then on, None for nothing to do."""

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


class Checkpoint(NamedTuple):
    """One row of `checkpoints`."""

    position: Position
    epoch: int


@dataclass(frozen=True, slots=True)
class Window:
    """What one read asks for: the events of `partitions` at positions in (low, high], at most `limit` of them."""

    partitions: tuple[Partition, ...]
    low: Position
    high: Position
    limit: int
    scattered: bool = field(default=False, compare=False)
    """So many events of other partitions lie between theirs that they are better read by partition than by position."""
    incarnation: Incarnation = NEVER


class Swap(NamedTuple):
    """One row of the compare-and-swap: move the partition's checkpoint from `expected` to `target`."""

    partition: Partition
    expected: Checkpoint
    target: Position


@dataclass(frozen=True, slots=True, kw_only=True)
class LogState:
    """What the start and every reconnect must know of the log; `checkpoint` is the greatest of any projection of it."""

    partitions: int
    head: Position
    checkpoint: Position


@dataclass(frozen=True, slots=True, kw_only=True)
class Blocker:
    """A transaction the frontier waits for: it may have drawn a position and has not ended."""

    pid: int | None
    prepared: str | None
    """The name given to PREPARE TRANSACTION; such a one has no pid."""
    application: str
    user: str
    age_s: float
    state: str
    query: str
    """What it ran last; empty without the right to see it. May hold data: shown to operators, never exported."""

    def __str__(self) -> str:
        """Return it in the words of a log line, without the query."""
        who = f"prepared transaction {self.prepared!r}" if self.pid is None else f"pid {self.pid}"
        who = f"{who} of {self.user} ({self.application or 'no application name'})"
        return f"{who}, {self.state}, open for {self.age_s:.1f} s"
