"""Replays: which events of a batch have been dealt with before, since their projection was rewound."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reactive_orch.model.events import replay_of

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from reactive_orch.model import Event, Position, Swap


def marked(events: Sequence[Event], swaps: Sequence[Swap], unhandled: Collection[Position]) -> tuple[Event, ...]:
    """Return the events of a batch, the replayed ones marked; those at `unhandled` come again and are new."""
    handled_to = {swap.partition: swap.expected.handled_to for swap in swaps}
    return tuple(
        event
        if event.global_position > handled_to[event.partition] or event.global_position in unhandled
        else replay_of(event)
        for event in events
    )
