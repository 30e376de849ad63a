"""Failing keys: what of a batch is handled and what waits, and when a failing key is tried again or parked."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

from reactive_orch.core.fitness import ANSWER_WITHIN_S
from reactive_orch.incarnation import NEVER, Incarnation
from reactive_orch.model.keys import Key, key_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from reactive_orch.model import Checkpoint, Event, OnError, Partition, Swap
    from reactive_orch.model.keys import Waiting

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


@dataclass(slots=True)
class KnownKeys:
    """Which keys can be failing ones, of the partitions of one lane (protocol 7.2).

    A key begins to fail only in a batch that moves its checkpoint over the event. So none has been added as long as the
    checkpoint stands where it did when they were read, or where this lane has moved it since: of other keys nothing has
    to be asked. One of them may have gone on meanwhile, as a retry moves nothing.
    """

    incarnation: Incarnation = NEVER
    _of: dict[Partition, tuple[Checkpoint, frozenset[Key]]] = field(default_factory=dict)
    """Where a partition's checkpoint stood, and which of its keys failed then."""

    def begin(self, incarnation: Incarnation) -> None:
        """Forget what was known of another incarnation: there a position may stand for something else."""
        if incarnation != self.incarnation:
            self.incarnation = incarnation
            self._of.clear()

    def unknown(self, swaps: Iterable[Swap]) -> list[Partition]:
        """Return those partitions of these swaps that do not start from where they are known."""
        return [s.partition for s in swaps if self._of.get(s.partition, (None,))[0] != s.expected]

    def learn(self, swaps: Iterable[Swap], failing: Collection[tuple[Partition, Key]]) -> None:
        """Note which keys fail of the partitions that these swaps hold."""
        for swap in swaps:
            keys = frozenset(key for partition, key in failing if partition == swap.partition)
            self._of[swap.partition] = swap.expected, keys

    def moved(self, swaps: Iterable[Swap]) -> None:
        """Note that these swaps have been committed, and that no key of theirs began to fail in that batch."""
        for partition, expected, target in swaps:
            if partition in self._of and (known := self._of[partition])[0] == expected:
                self._of[partition] = expected._replace(position=target), known[1]

    def among(self, events: Iterable[Event]) -> set[Key]:
        """Return the keys of these events that can be failing ones; all their partitions are known."""
        return {key for event in events if (key := key_of(event)) in self._of[event.partition][1]}


DEATHS_MOST = 3
"""An event that has ended its process, or its connection, so often when it was alone is given up, however many retries
there are: each costs everybody who is there. And not before: a process that ends proves less than an error."""
DEATH_PAUSES_S = 2.0, 10.0
"""Before it is tried again: others are to be handled first, and whoever was lost is to come back."""


Action: TypeAlias = Literal["retry", "ask", "park", "halt"]


class Policy(NamedTuple):
    """What a projection says about events that fail."""

    retries: int
    on_error: OnError


class Verdict(NamedTuple):
    """What becomes of a key whose first waiting event has failed."""

    action: Action
    pause_s: float | None
    """In how many seconds it is tried again, at most; 0 when its projection runs again; None: when somebody asks."""


def judge(attempts: int, policy: Policy, deaths: int = 0, *, others: bool = False) -> Verdict:
    """Return what becomes of a key whose first waiting event has failed so often in a row.

    `deaths`: how many of these have ended the process, or the connection, if the last has; else 0. `others`: another
    worker could try it and has not: it is asked to, before the event is given up; not if that may cost its life.
    """
    if 0 < deaths < DEATHS_MOST:
        return Verdict("retry", DEATH_PAUSES_S[deaths - 1])
    if attempts <= policy.retries and not deaths:
        # At 30 s long before the exponent is more than a float can take.
        return Verdict("retry", min(RETRY_FIRST_S * 2.0 ** (attempts - 1), RETRY_MOST_S))
    if others and not deaths:
        return Verdict("ask", ANSWER_WITHIN_S)
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
