"""What has happened: the values that the runtime tells, and whom it tells.

A report is made once, when the thing has happened, and nobody answers. It is cheap: a named tuple of what the runtime
has in hand anyway. What must be known earlier is asked for (`Tracing`). Nothing that works depends on either.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from reactive_orch.model.events import Event
    from reactive_orch.model.handlers import EventHandler
    from reactive_orch.model.log import Holder, LogName, Partition, Position, Subscription, Window
    from reactive_orch.model.membership import (
        Acknowledged,
        Adopted,
        AdoptionSteps,
        Change,
        Resting,
        Snapshot,
        Turn,
        Written,
    )
    from reactive_orch.model.problems import Problem
    from reactive_orch.model.status import Status


class Subject(NamedTuple):
    """What a report of handling is about: a projection in a replica set, and the log that it reads."""

    replica_set: str
    projection: str
    log: LogName


# Of the process.


class NodeStarted(NamedTuple):
    """A process takes part."""

    status: Callable[[], Status]
    """How it stands can be asked here, until `NodeStopped`; in any thread."""


class NodeStopped(NamedTuple):
    """A process takes part no more."""

    status: Callable[[], Status]
    """That of `NodeStarted`; do not ask it any more."""


class Appended(NamedTuple):
    """`append` has taken events; their transaction may still roll back."""

    events: int


class WorkerStarted(NamedTuple):
    """A worker begins its life."""

    replica_set: str


class Notified(NamedTuple):
    """A notification has arrived."""

    channel: str
    """`events` or `generations`."""
    outcome: str
    """`used`; `coalesced`: a wake-up was due anyway; `ignored`: it concerns nobody here."""


class HeartbeatSent(NamedTuple):
    """A heartbeat was answered, or was not."""

    duration_s: float
    outcome: str
    """`ok`; `late`: it found a row locked; `lost`: the connection was lost."""


class SessionLost(NamedTuple):
    """The membership connection is lost; it is made anew."""

    error: BaseException


class SessionBack(NamedTuple):
    """The membership connection is there again."""

    since_ns: int
    """When it was lost, since 1970."""
    error: BaseException
    """What it was lost by."""


class ConnectionLost(NamedTuple):
    """Another connection outside the pools is lost; it is made anew."""

    kind: str
    """`watch` or `tail`."""


class PoolWaited(NamedTuple):
    """A connection of a pool was borrowed, after a wait."""

    pool: str
    waited_s: float


class LoopMeasured(NamedTuple):
    """By how much the event loop was late, looked at now and then."""

    delay_s: float


class LoopBlocked(NamedTuple):
    """The event loop stood still."""

    delay_s: float
    busy: Sequence[str]
    """The projections that have a batch in hand."""


class Interrupted(NamedTuple):
    """A loop passes over an error, to try again."""

    place: str
    """Which loop, one of those in the table of metrics."""
    error: BaseException
    replica_set: str = ""
    projection: str = ""
    log: LogName = ""


# Of the log.


class FollowerWoke(NamedTuple):
    """The follower of a log looks at it."""

    log: LogName
    source: str


class FrontierHeld(NamedTuple):
    """Writers have held a log's frontier for more than a second, and still do."""

    log: LogName
    settled: Position
    holders: Sequence[Holder]


class FrontierReleased(NamedTuple):
    """A log's frontier moves on, after writers held it for more than a second. Others may hold it again at once."""

    log: LogName
    settled: Position
    """Up to where the log can be read now."""
    holders: Sequence[Holder]
    """Who held it when that was last looked at."""
    held_s: float


class RingingStopped(NamedTuple):
    """A log's writers do not ring: it is looked at by the clock."""

    log: LogName
    reason: str
    every_s: float


class RingingResumed(NamedTuple):
    """A log's writers ring again."""

    log: LogName


# Of the worker.


class ProjectionRefused(NamedTuple):
    """A projection is recorded with another filter, and not run here."""

    subject: Subject


class ProjectionGivenUp(NamedTuple):
    """Another filter was accepted for a projection that was run here: those that have it go on with it."""

    subject: Subject


class ProjectionProposed(NamedTuple):
    """Nobody runs a projection that this worker is refused for: it could, with its filter."""

    subject: Subject


class ProjectionAccepted(NamedTuple):
    """A projection that was refused is recorded with this worker's filter now, and run here."""

    subject: Subject


class SteppedDown(NamedTuple):
    """A worker leaves a projection to the others for a while: what fails there succeeds elsewhere."""

    subject: Subject
    for_s: float


class TookPartAgain(NamedTuple):
    """A worker that has left a projection to the others runs it again."""

    subject: Subject


class FilterUnmatched(NamedTuple):
    """No event that was looked at passes the filter of a projection: perhaps a name in it is misspelt."""

    subject: Subject
    looked_at: int
    """Events at either end of the log."""


class TurnBegan(NamedTuple):
    """A worker looks at its replica set."""

    replica_set: str
    source: str
    """What has woken it."""


class Looked(NamedTuple):
    """A worker has seen its replica set."""

    turn: Turn


class JoinAsked(NamedTuple):
    """A worker asks to be a member."""

    replica_set: str


class GenerationWritten(NamedTuple):
    """A worker has written a generation, on top of the one it saw."""

    turn: Turn
    snapshot: Snapshot
    change: Change
    traceparent: str
    """What its row says."""
    began_ns: int
    """When the statement began and ended, since 1970."""
    ended_ns: int
    written: Written


class GenerationNotWritten(NamedTuple):
    """A generation was not written: the replica set has moved on. With an error nobody knows whether it was written."""

    turn: Turn
    traceparent: str
    began_ns: int
    ended_ns: int
    error: BaseException | None


class OrphansSpared(NamedTuple):
    """Connections that removed workers have left behind could not be ended."""

    turn: Turn
    snapshot: Snapshot
    connections: int


class AdoptionEnded(NamedTuple):
    """A member has adopted a generation, or given up adopting it."""

    steps: AdoptionSteps
    facts: Adopted
    outcome: str
    """`acknowledged`, `superseded` or `failed`."""
    assigned: Mapping[Subscription, frozenset[Partition]]
    """Subscription → the partitions that the generation gives the member."""
    acknowledging: tuple[int, Acknowledged] | None
    """When it began to acknowledge, in ns since 1970, and what came back; None if it was not acknowledged."""
    ended_ns: int

    @property
    def completed_s(self) -> float | None:
        """How long the generation took until all had acknowledged; None unless this was the last one."""
        created_at = self.steps.snapshot.created_at
        completed_at = self.acknowledging[1].completed_at if self.acknowledging else None
        return (completed_at - created_at).total_seconds() if completed_at and created_at else None


class GenerationCompleted(NamedTuple):
    """Every member has adopted a generation; told by the last one."""

    turn: Turn
    snapshot: Snapshot
    last: Acknowledged
    duration_s: float
    """Since it was written."""


class Expelled(NamedTuple):
    """The others took this worker for dead."""

    turn: Turn
    snapshot: Snapshot


class Left(NamedTuple):
    """A worker that was asked to stop is a member no more."""

    turn: Turn
    snapshot: Snapshot
    in_hand: Mapping[Subscription, frozenset[Partition]]
    """Subscription → the partitions of batches that it finishes first; none is left out."""
    grace_s: float
    """How long it waits for them, at most."""


class Abandoned(NamedTuple):
    """A worker that stops waits for these batches no longer: they are rolled back, and others handle their events."""

    replica_set: str
    in_hand: Mapping[Subscription, frozenset[Partition]]
    """Subscription → the partitions of its batches."""


class Unreachable(NamedTuple):
    """A worker cannot look at its replica set."""

    replica_set: str
    error: BaseException


class ProblemBegan(NamedTuple):
    """A process knows of a problem that it did not know of before."""

    problem: Problem


class ProblemEnded(NamedTuple):
    """A problem is over."""

    problem: Problem
    """As it was last."""


# Of a projection.


class RunnerStarted(NamedTuple):
    """A worker begins to run a projection."""

    subject: Subject


class WindowRead(NamedTuple):
    """The database has answered with a window."""

    subject: Subject
    duration_s: float


class EventUnreadable(NamedTuple):
    """An event cannot be read: an attempt has failed before its handler was called."""

    subject: Subject
    error: BaseException


class BatchEnded(NamedTuple):
    """A batch was committed or rolled back."""

    subject: Subject
    events: Sequence[Event]
    """The events handled; after a failure, all that were to be."""
    duration_s: float
    failure: BaseException | None
    """What has rolled it back; None if it was committed."""
    traceparent: str | None
    """What `Tracing.batch` has given."""
    replayed: int = 0
    """How many of the events are replayed ones."""


class AttemptFailed(NamedTuple):
    """A handler has failed; the batch is rolled back and done again."""

    subject: Subject
    position: Position
    """The failing event is here; or before, while it is not known which it is."""
    error: BaseException
    alone: bool
    """It is known which it is."""
    first: bool
    """It has not failed before, as far as its lane knows."""
    attempts: int = 0
    """How often it has failed alone by now, as `FailingKey.attempts`: not with others in its batch."""


class Serialized(NamedTuple):
    """Handlers have met a deadlock: from now on the batches of their projection go one at a time, on all workers."""

    subject: Subject
    for_s: float


class RestChanged(NamedTuple):
    """A projection rests from now on, or runs again."""

    subject: Subject
    resting: Resting | None
    """None: it runs."""


class Suspected(NamedTuple):
    """Partitions were taken over whose owner was lost without a word: an event of theirs may have ended its process."""

    subject: Subject
    partitions: int


class KeyParked(NamedTuple):
    """The events of a key wait for a person: the first of them has failed in each attempt."""

    subject: Subject
    position: Position
    attempts: int
    error: BaseException
    first: bool
    """It was the first attempt, and nothing has been told of it."""


class EventFailed(NamedTuple):
    """An event has failed in each attempt, and for that its projection halts."""

    subject: Subject
    position: Position
    attempts: int
    error: BaseException
    first: bool
    """As of `KeyParked`."""


class KeyLive(NamedTuple):
    """Nothing waits any more of a key that was a failing one."""

    subject: Subject
    partition: Partition


class ReadCut(NamedTuple):
    """Reading a window took too long; narrower ones follow."""

    subject: Subject
    window: Window
    error: BaseException


class Struck(NamedTuple):
    """Something that a handler left behind has cancelled its lane after the call."""

    subject: Subject


Report: TypeAlias = (
    NodeStarted
    | NodeStopped
    | Appended
    | WorkerStarted
    | Notified
    | HeartbeatSent
    | SessionLost
    | SessionBack
    | ConnectionLost
    | PoolWaited
    | LoopMeasured
    | LoopBlocked
    | Interrupted
    | FollowerWoke
    | FrontierHeld
    | FrontierReleased
    | RingingStopped
    | RingingResumed
    | FilterUnmatched
    | ProjectionAccepted
    | ProjectionGivenUp
    | ProjectionProposed
    | ProjectionRefused
    | SteppedDown
    | TookPartAgain
    | TurnBegan
    | Looked
    | JoinAsked
    | GenerationWritten
    | GenerationNotWritten
    | OrphansSpared
    | AdoptionEnded
    | GenerationCompleted
    | Expelled
    | Left
    | Abandoned
    | Unreachable
    | ProblemBegan
    | ProblemEnded
    | RunnerStarted
    | WindowRead
    | EventUnreadable
    | BatchEnded
    | AttemptFailed
    | Serialized
    | RestChanged
    | Suspected
    | KeyParked
    | EventFailed
    | KeyLive
    | ReadCut
    | Struck
)

Observer: TypeAlias = Callable[[Report], None]
"""Is told of each report, at once and in the task that it happens in: it must be quick, and must not wait."""

Emit: TypeAlias = Callable[[Report], None]
"""Tells all observers. Raises nothing, whatever they do."""


class Tracing(Protocol):
    """What must be known before something is over. The engine works with every answer, and without one."""

    def generation(self, turn: Turn, snapshot: Snapshot, change: Change) -> str | None:
        """Begin the trace of a generation; return its row's traceparent, or None to have one drawn.

        `GenerationWritten` or `GenerationNotWritten` follows.
        """
        ...

    def batch(self, subject: Subject, generation: int, events: Sequence[Event]) -> AbstractContextManager[str | None]:
        """Return the context that the handlers of a batch run in; it gives the traceparent of the batch, if any.

        `BatchEnded` is told inside.
        """
        ...

    def each(self, subject: Subject, handler: EventHandler) -> EventHandler:
        """Return a handler that does the same, and may trace each event."""
        ...

    def quiet(self) -> AbstractContextManager[object]:
        """Return a context in which an instrumented database driver makes no spans: for all but the handlers."""
        ...


class Untraced:
    """Nobody traces."""

    def generation(self, turn: Turn, snapshot: Snapshot, change: Change) -> None:
        """Begin nothing."""

    def batch(self, subject: Subject, generation: int, events: Sequence[Event]) -> AbstractContextManager[str | None]:
        """Do nothing."""
        del subject, generation, events
        return nullcontext()

    def each(self, subject: Subject, handler: EventHandler) -> EventHandler:
        """Return the same handler."""
        del subject
        return handler

    def quiet(self) -> AbstractContextManager[object]:
        """Do nothing."""
        return nullcontext()


class Watchers(NamedTuple):
    """Who watches a process: told of what has happened, asked for what must be known before."""

    emit: Emit
    tracing: Tracing
