"""Events as a handler gets them, without a log: for tests that need no database but that of the handler."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TypeVar
from uuid import uuid4

from reactive_orch.json_text import text_of
from reactive_orch.model import Event, NewEvent

if TYPE_CHECKING:
    from reactive_orch.model import Position

_Event = TypeVar("_Event")


def as_logged(events: Iterable[Event | NewEvent], *, created_at: datetime | None = None) -> list[Event]:
    """Return the events as they would stand in a log that has no others: for handlers and filters.

    Positions are 1, 2, …, versions are counted for each aggregate, `created_at` is now unless it is given, the
    partition is always 0. What is an `Event` already stays as it is. Raises TypeError for what is neither, ValueError
    or TypeError for a payload or metadata that JSON cannot carry.
    """
    versions: Counter[tuple[str, str, str]] = Counter()
    created_at = created_at or datetime.now(UTC)
    return [
        each if isinstance(each, Event) else _logged(each, position, versions, created_at)
        for position, each in enumerate(checked(events, "as_logged", NewEvent, Event), 1)
    ]


def _logged(new: NewEvent, position: Position, versions: Counter[tuple[str, str, str]], created_at: datetime) -> Event:
    aggregate = new.bounded_context, new.aggregate_type, new.aggregate_id
    versions[aggregate] += 1
    return Event(
        global_position=position,
        partition=0,
        bounded_context=new.bounded_context,
        aggregate_type=new.aggregate_type,
        aggregate_id=new.aggregate_id,
        aggregate_version=versions[aggregate],
        event_id=new.event_id or uuid4(),
        event_type=new.event_type,
        event_version=new.event_version,
        payload=new.payload_bytes(),
        trace_id=new.trace_id,
        correlation_id=new.correlation_id,
        causation_id=new.causation_id,
        metadata_json=text_of(new.metadata),
        created_at=created_at,
        partition_key=new.partition_key,
    )


def checked(events: Iterable[_Event], taker: str, *kinds: type) -> tuple[_Event, ...]:
    """Return the events. Raises TypeError unless they are several, in a list for instance, each of one of the types."""
    names = " or ".join(kind.__name__ for kind in kinds)
    if isinstance(events, (Event, NewEvent, str, bytes, dict)) or not isinstance(events, Iterable):
        msg = f"{taker} takes a list of events ({names}), not {type(events).__name__}"
        raise TypeError(msg)
    found = tuple(events)
    for number, event in enumerate(found, 1):
        if not isinstance(event, kinds):
            msg = (
                f"{taker} takes events ({names}), and number {number} is of type {type(event).__name__}; "
                "of an object of an event class EventTypes.new makes one"
            )
            raise TypeError(msg)
    return found
