"""Failing keys: what of a batch is handled and what waits, and when a failing key is tried again or parked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

from reactive_orch.model.keys import key_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from reactive_orch.model import Event, OnError
    from reactive_orch.model.keys import Key, Waiting

RETRY_FIRST_S = 0.1
RETRY_MOST_S = 30.0
"""The pause before each attempt is twice the one before, within these."""


KEYS_MAX = 1024
EVENTS_MAX = 100_000
"""More of a projection are not to wait: so many are for a person to look at, not to be piled up."""


def split(events: Sequence[Event], failing: Mapping[Key, int]) -> tuple[Sequence[Event], Sequence[Event]]:
    """Return the events to handle, and those that wait since their key is a failing one."""
    live = tuple(event for event in events if key_of(event) not in failing)
    return live, tuple(event for event in events if key_of(event) in failing)


DEATHS_MOST = 3
"""An event that has ended its process, or its connection, so often when it was alone is given up, however many retries
there are: each costs everybody who is there. And not before: a process that ends proves less than an error."""
DEATH_PAUSES_S = 2.0, 10.0
"""Before it is tried again: others are to be handled first, and whoever was lost is to come back."""


Action: TypeAlias = Literal["retry", "park", "halt"]


class Policy(NamedTuple):
    """What a projection says about events that fail."""

    retries: int
    on_error: OnError


class Verdict(NamedTuple):
    """What becomes of a key whose first waiting event has failed."""

    action: Action
    pause_s: float | None
    """In how many seconds it is tried again, at most; 0 when its projection runs again; None: when somebody asks."""


def judge(attempts: int, policy: Policy, deaths: int = 0) -> Verdict:
    """Return what becomes of a key whose first waiting event has failed so often in a row.

    `deaths`: how many of these have ended the process, or the connection, if the last has; else 0.
    """
    if 0 < deaths < DEATHS_MOST:
        return Verdict("retry", DEATH_PAUSES_S[deaths - 1])
    if attempts <= policy.retries and not deaths:
        # At 30 s long before the exponent is more than a float can take.
        return Verdict("retry", min(RETRY_FIRST_S * 2.0 ** (attempts - 1), RETRY_MOST_S))
    return Verdict("park", None) if policy.on_error == "park" else Verdict("halt", 0.0)


def too_many(waiting: Waiting) -> str | None:
    """Return why a projection is not to let more wait; None if it may.

    What waited when somebody let it run was known to him: as much again may wait.
    """
    if waiting.keys - waiting.keys_then > KEYS_MAX:
        return f"{waiting.keys} keys wait behind failed events, and no more than {KEYS_MAX} are to pile up"
    if waiting.events - waiting.events_then > EVENTS_MAX:
        return f"{waiting.events} events wait behind failed ones, and no more than {EVENTS_MAX} are to pile up"
    return None
