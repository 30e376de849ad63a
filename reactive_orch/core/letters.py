"""A failing key with the event that waits first, for people and programs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from reactive_orch.core.remedies import ours
from reactive_orch.model.names import printable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from reactive_orch.model.keys import FailingKey, WaitingEvent


class Shown(NamedTuple):
    """What is shown of a key."""

    replica_set: str
    key: FailingKey
    event: WaitingEvent | None
    """The one that waits first; None if it is not in the log any more."""
    rests: str | None = None
    """How its projection rests, in which nothing is tried; None if it runs."""
    payload: str | None = None
    """The event's; None if nobody has asked for it, or may read it."""


def as_json(key: FailingKey) -> dict[str, Any]:
    """Return what `list` tells of a key, for programs."""
    return {
        "projection": key.projection,
        "log": key.log,
        "partition": key.partition,
        "context": key.key.bounded_context or None,
        "type": key.key.aggregate_type or None,
        "key": key.key.aggregate_id,
        "state": key.state,
        "request": key.request,
        "events": key.events,
        "first_position": key.first_position,
        "error": error_of(key),
        "since": key.failed_first_at.isoformat(),
        "attempts": key.attempts,
    }


def whole_as_json(shown: Shown) -> dict[str, Any]:
    """Return what `show` tells of a key, for programs."""
    key, event = shown.key, None if shown.event is None else shown.event._asdict()
    if event is not None and shown.payload is not None:
        event["payload"] = shown.payload
    last = {"last": key.failed_last_at.isoformat(), "worker": key.worker, "traceback": key.failure.traceback}
    return as_json(key) | last | {"event": event}


def commands_of(replica_set: str, key: FailingKey) -> Mapping[str, str]:
    """Return what may be done with a key, and the command that does it."""
    of = {"replica_set": replica_set, "projection": key.projection, "key": named(key)}
    return {word: ours(f"dead-letters {word}", **of) for word in ("show", "retry", "skip", "discard")}


def named(key: FailingKey) -> str:
    """Return a key as people see it, and as --key takes it."""
    context, aggregate_type, aggregate_id = key.key
    if not aggregate_type:
        return printable(aggregate_id)  # a partition key
    return printable(f"{'' if context == 'default' else f'{context}/'}{aggregate_type}/{aggregate_id}")


def error_of(key: FailingKey) -> str:
    """Return in a line how a key has failed last."""
    error_type, sqlstate, message, _ = key.failure
    return printable(f"{error_type}{f' ({sqlstate})' if sqlstate else ''}: {' '.join(message.split())}")
