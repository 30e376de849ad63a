"""Events, as handlers see them and as they are appended: for users."""

from __future__ import annotations

import enum
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, cast

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime
    from uuid import UUID


class Event(NamedTuple):
    """One row of the log, as handlers see it. The fields are the columns in the order of the view `event_log`."""

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
    partition_key: str | None = None
    """What it shares its partition, and its order, with; None: with the other events of its aggregate id."""

    @property
    def replayed(self) -> bool:
        """Whether it has been dealt with before: its projection was rewound since."""
        return False

    def json(self) -> Any:
        """Return the payload decoded as JSON. Raises ValueError when it is not JSON."""
        return json.loads(self.payload)

    @property
    def metadata(self) -> dict[str, Any]:
        """The metadata column, decoded at each access: most handlers never look, so reading does not pay for it."""
        return cast("dict[str, Any]", json.loads(self.metadata_json))


class _Replayed(Event):
    """An event that comes again. Events are shared by all who read the same window; this is one's own."""

    __slots__ = ()

    @property
    def replayed(self) -> bool:
        return True


def replay_of(event: Event) -> Event:
    """Return the event as one that comes again."""
    return tuple.__new__(_Replayed, event)


def written_at(event: Event) -> float | None:
    """Return when an event was written, in seconds since 1970; None for a time that no clock shows, as -infinity."""
    try:
        return event.created_at.timestamp()
    except (OverflowError, ValueError):
        return None


class Expected(enum.Enum):
    """What an append may demand of the aggregate's stream, besides an exact version (an int)."""

    ANY = "any"
    NO_STREAM = "no stream"


@dataclass(frozen=True, slots=True, kw_only=True)
class NewEvent:
    """An event to append. `payload` is bytes, or anything JSON can carry; without an `event_id` the database draws one.

    `metadata` becomes a JSON object.
    """

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
    partition_key: str | None = None
    """All events of one key are handled one after the other, in order, whatever their aggregates; None: those of one
    aggregate id are. Events of one aggregate need one key, or they have no order among each other."""

    def payload_bytes(self) -> bytes:
        """Return the payload as stored: bytes as they are, all else as compact JSON.

        Raises ValueError or TypeError for what JSON cannot carry.
        """
        if isinstance(self.payload, bytes):
            return self.payload
        return json.dumps(self.payload, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()
