"""A failing key as `dead-letters` shows it: the event that waits first, how it has failed, and what may be done."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from reactive_orch.commands.terminal import count, printable, shown_time
from reactive_orch.core.remedies import ours

if TYPE_CHECKING:
    from collections.abc import Iterator

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


def whole(shown: Shown) -> str:
    """Return all that is known of a key, for people."""
    key = shown.key
    return "\n".join(
        [
            f"{key.projection}: {named(key)}, partition {key.partition} of log {key.log}",
            f"{key.state}{f', {key.request} asked' if key.request else ''}; {count(key.events, 'event')} waiting, "
            f"the first at position {key.first_position}",
            *_event(shown),
            f"failed alone {count(key.attempts, 'time')}, first {shown_time(key.failed_first_at)}, "
            f"last {shown_time(key.failed_last_at)}",
            f"tried last by {printable(key.worker)}",
            error_of(key),
            f"\n{printable(key.failure.traceback.rstrip())}\n",
            *_commands(shown),
        ]
    )


def _event(shown: Shown) -> Iterator[str]:
    if (event := shown.event) is None:
        yield f"event {shown.key.first_position}: not in the log any more"
        return
    ordered_by = "" if shown.key.key.aggregate_type else f", partition key {named(shown.key)}"
    yield printable(f"event {event.position}: {event.type}, version {event.version} of its aggregate{ordered_by}")
    yield f"created {event.created_at}, id {event.id}"
    if shown.payload is not None:
        yield f"payload: {printable(shown.payload)}"


def _commands(shown: Shown) -> Iterator[str]:
    """Yield what may be done, and the command that does it."""
    key = shown.key
    of = {"replica_set": shown.replica_set, "projection": key.projection}
    if shown.rests is not None:
        yield f"the projection is {shown.rests}, nothing of it is tried; to let it run again:"
        yield f"    {ours('resume', **of)}"
    for word, does in (
        ("retry", f"to try event {key.first_position} again, and then what waits behind it"),
        ("skip", f"to leave out event {key.first_position} for good, and go on with the next"),
        ("discard", f"to leave out all that wait for good ({count(key.events, 'event')})"),
    ):
        yield f"{does}:"
        yield f"    {ours(f'dead-letters {word}', **of, key=named(key))}"


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
