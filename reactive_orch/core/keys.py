"""Failing keys: what of a batch is handled and what waits, and when a failing key is tried again or parked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reactive_orch.model.keys import key_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from reactive_orch.model import Event
    from reactive_orch.model.keys import Key

RETRY_FIRST_S = 0.1
RETRY_MOST_S = 30.0
"""The pause before each attempt is twice the one before, within these."""


def split(events: Sequence[Event], failing: Mapping[Key, int]) -> tuple[Sequence[Event], Sequence[Event]]:
    """Return the events to handle, and those that wait since their key is a failing one."""
    live = tuple(event for event in events if key_of(event) not in failing)
    return live, tuple(event for event in events if key_of(event) in failing)


def next_pause_s(attempts: int, retries: int) -> float | None:
    """Return in how many seconds a key is tried again that has failed so often in a row; None: no more."""
    if attempts > retries:
        return None
    return min(RETRY_FIRST_S * 2.0 ** (attempts - 1), RETRY_MOST_S)
