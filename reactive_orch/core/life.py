"""A worker's life: its states, and what leads from one to the next. What the table leaves out is a mistake of ours."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from reactive_orch.model import WorkerState as Is

if TYPE_CHECKING:
    from collections.abc import Mapping


class Happened(enum.Enum):
    """What may happen to a worker."""

    ASKED_TO_JOIN = "asked to join"
    BEGAN_TO_ADOPT = "began to adopt"
    ADOPTED = "adopted"
    EXPELLED = "was expelled"
    LOST_THE_DATABASE = "lost the database"
    STOPS = "stops"
    ENDED = "ended"


_ENDS: Mapping[Happened, Is] = {Happened.ENDED: Is.STOPPED}
_ANY_TIME: Mapping[Happened, Is] = {
    **_ENDS,
    Happened.LOST_THE_DATABASE: Is.UNAVAILABLE,
    Happened.STOPS: Is.STOPPING,
}
_MEMBER: Mapping[Happened, Is] = {
    **_ANY_TIME,
    Happened.ASKED_TO_JOIN: Is.JOINING,
    Happened.EXPELLED: Is.JOINING,
    Happened.BEGAN_TO_ADOPT: Is.REBALANCING,
}

NEXT: Mapping[Is, Mapping[Happened, Is]] = MappingProxyType(
    {
        Is.STARTING: {**_ANY_TIME, Happened.ASKED_TO_JOIN: Is.JOINING},
        Is.JOINING: _MEMBER,
        Is.REBALANCING: {**_MEMBER, Happened.ADOPTED: Is.SERVING},
        Is.SERVING: _MEMBER,
        Is.UNAVAILABLE: _MEMBER,
        Is.STOPPING: _ANY_TIME,
        Is.STOPPED: _ENDS,
    }
)
"""State -> what happened -> the next state. STANDBY is SERVING with nothing to hold: shown, never entered."""


def after(state: Is, happened: Happened) -> Is:
    """Return the next state. Raises AssertionError for what cannot happen in this one."""
    assert happened in NEXT[state], f"a worker that is {state.value} {happened.value}"
    return NEXT[state][happened]


@dataclass(slots=True)
class Life:
    """Where one worker is in its life."""

    state: Is = Is.STARTING
    expelled: bool = False
    """The others took this worker for dead, and it has not adopted a generation since."""

    def note(self, happened: Happened) -> None:
        """Go on to what this leads to. Raises AssertionError as `after` does."""
        self.state = after(self.state, happened)
        if happened in _DECIDES_EXPULSION:
            self.expelled = happened is Happened.EXPELLED


_DECIDES_EXPULSION = frozenset({Happened.EXPELLED, Happened.ADOPTED, Happened.STOPS, Happened.ENDED})


def shown(state: Is, *, empty: bool) -> Is:
    """Return the state as others see it; `empty`: there is nothing that it holds or should hold."""
    return Is.STANDBY if state is Is.SERVING and empty else state
