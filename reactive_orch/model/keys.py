"""Keys of events, and what is kept of those of which an event has failed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from reactive_orch.incarnation import Incarnation
    from reactive_orch.model.events import Event
    from reactive_orch.model.log import LogName, Partition, Position

KeyRequest: TypeAlias = Literal["retry", "skip", "discard"]
"""What a person asks the owner of a failing key to do: try its events again, leave out the first, or all of them."""


KeyState: TypeAlias = Literal["retrying", "parked"]


class Key(NamedTuple):
    """What orders events: those of one key are handled in the order of the log.

    A partition key is an id alone, without a context and a type.
    """

    bounded_context: str
    aggregate_type: str
    aggregate_id: str


class Failure(NamedTuple):
    """How an event has failed, as it is kept in the database for people. Nothing of it goes to telemetry or logs."""

    error_type: str
    sqlstate: str | None
    message: str
    traceback: str


class Attempt(NamedTuple):
    """An attempt of an event that has failed, and what comes next."""

    number: int
    """How often this event has failed alone by now, as `FailingKey.attempts`."""
    failure: Failure
    pause_s: float | None
    """After how many seconds it is tried again; None: it is parked."""
    worker: str
    """Where it has failed."""
    deaths: int = 0
    """How many of these attempts have ended the process, or its connection, instead of failing."""
    asked_by: str | None = None
    """The process that asks others to try it before it is parked; None if it does not."""

    @property
    def state(self) -> KeyState:
        """What becomes of the key."""
        return "parked" if self.pause_s is None else "retrying"


class Waiting(NamedTuple):
    """What waits of a projection, in its whole replica set, as far as one batch can see."""

    keys: int
    """How many keys fail."""
    events: int
    """How many events wait with them."""
    keys_then: int
    """How many keys failed when somebody last let the projection run."""
    events_then: int


class Asked(NamedTuple):
    """A first waiting event that has failed, and that other workers are asked to try."""

    position: Position
    epoch: int
    """How often its projection had been rewound."""
    incarnation: Incarnation
    """In which that was written: in another one the key's id may be another key's."""


class DueKey(NamedTuple):
    """A failing key on which a lane is to act."""

    id: int
    partition: Partition
    position: Position
    """Where its first waiting event is."""
    attempts: int
    """How often that one has failed, in a row."""
    deaths: int
    """How many of these attempts have ended the process, or its connection."""
    request: KeyRequest | None
    requested_by: str | None
    request_position: Position | None
    """Where its first waiting event was for who has asked."""
    asked_by: str | None
    """The process that has asked others to try it before it is parked, and has had no answer."""
    due_in_s: float
    elsewhere: bool = False
    """It is tried by a lane that need not have its partition."""


class Marker(NamedTuple):
    """What a lane says it has in hand, before a handler is called that may end its process."""

    worker: str
    """The name of the process."""
    lane: int
    position: Position
    """Where the last of the events is."""
    events: int


class WantedKeys(NamedTuple):
    """Which failing keys a person wants to see: None for any."""

    replica_set: str
    projection: str | None = None
    aggregate_id: str | None = None
    aggregate_type: str | None = None
    bounded_context: str | None = None
    log: LogName | None = None
    most: int | None = None
    """So many at most, those that have begun to fail first; else all."""


class FailingKey(NamedTuple):
    """A failing key, for people."""

    id: int
    projection: str
    log: LogName
    partition: Partition
    key: Key
    state: KeyState
    request: KeyRequest | None
    """What its owner has been asked to do and has not done yet."""
    attempts: int
    """How often its first waiting event has failed alone, in a row: on any worker, before it was parked and since.

    Not counted is that it failed in a batch with others, after which it was tried alone, nor a trial of a suspended
    projection. The log lines of workers have the same number.
    """
    failure: Failure
    """How it has failed last."""
    worker: str
    """Where."""
    failed_first_at: datetime
    failed_last_at: datetime
    events: int
    """How many wait."""
    first_position: Position
    """Where the first of them is."""


class Cause(NamedTuple):
    """What keys of one projection have failed with, at one line."""

    projection: str
    log: LogName
    error_type: str
    message: str
    """The beginning of what the key has said that has failed last."""
    line: str | None
    """The innermost line of a traceback that is of no installed file, as `file:line`; else of any file."""
    first_at: datetime
    last_at: datetime
    attempts: int
    """The most of any key."""
    keys: int
    parked_keys: int
    events: int
    """How many wait."""
    partitions: Sequence[Partition]


class WaitingEvent(NamedTuple):
    """The event that waits first of a failing key, for people."""

    position: Position
    id: str
    type: str
    version: int
    """Of its aggregate."""
    created_at: str
    """By UTC; a text, since the log may hold a time that Python has none for."""


def key_of(event: Event) -> Key:
    """Return the key of an event: its partition key if it has one, else its aggregate."""
    if event.partition_key is not None:
        return Key("", "", event.partition_key)
    return Key(event.bounded_context, event.aggregate_type, event.aggregate_id)
