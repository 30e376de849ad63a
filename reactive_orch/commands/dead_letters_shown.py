"""A failing key as `dead-letters` shows it: the event that waits first, how it has failed, and what may be done."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reactive_orch.commands.terminal import count, shown_time
from reactive_orch.core.letters import Shown, commands_of, error_of, named
from reactive_orch.core.remedies import ours
from reactive_orch.model.names import printable

if TYPE_CHECKING:
    from collections.abc import Iterator


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
    if shown.rests is not None:
        yield f"the projection is {shown.rests}, nothing of it is tried; to let it run again:"
        yield f"    {ours('resume', replica_set=shown.replica_set, projection=key.projection)}"
    commands = commands_of(shown.replica_set, key)
    for word, does in (
        ("retry", f"to try event {key.first_position} again, and then what waits behind it"),
        ("skip", f"to leave out event {key.first_position} for good, and go on with the next"),
        ("discard", f"to leave out all that wait for good ({count(key.events, 'event')})"),
    ):
        yield f"{does}:"
        yield f"    {commands[word]}"
