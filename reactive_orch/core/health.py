"""What a worker answers when asked how it is: what its state and its troubles mean to whoever asks.

live     if not, only a restart helps; the database's state and the lag do not count
ready    it takes part, and may be counted upon in a rolling deployment
well     nothing needs a person
"""

from __future__ import annotations

from dataclasses import dataclass, field

from reactive_orch.core.problems import HELD_AFTER_S, LOG_HELD, keys_wait, rests, unserved
from reactive_orch.model import WorkerState

STUCK_AFTER_S = 10.0
"""A projection that has been trying the same event for so long has been stopped by it."""
UNSERVED_AFTER_S = 30.0
"""A projection that no worker has run for so long is not one that is just being handed over."""
STALLED_AFTER_S = 10.0
"""What has not moved for so long is said. Sooner would accuse a busy worker: it saves what it read without finding an
event every 5 s, and a statement may take as long before it is given up and tried again."""
STALLED_TOO_LONG_S = 30.0
"""Then it needs a person: a restart of the server, or a failover (10 to 14 s), is over by then, and the longest pause
between attempts is 5 s."""


@dataclass(frozen=True, slots=True)
class Stall:
    """Something that should go on and does not."""

    what: str
    for_s: float
    cause: str = ""
    """The type and code of the error that was passed over last, or what it waits for; empty when unknown."""

    @property
    def lasts(self) -> bool:
        """Whether it has gone on for long enough to be said."""
        return self.for_s > STALLED_AFTER_S

    def __str__(self) -> str:
        """Return the reason that health gives."""
        return f"{self.what} for {self.for_s:.0f} s" + (f": {self.cause}" if self.cause else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What a worker knows of itself, without asking the database. Ages are in seconds."""

    state: WorkerState
    age_s: float
    """Since it last began to look at its replica set."""
    age_max_s: float
    rebalancing_s: float = 0.0
    rebalancing_max_s: float
    listens: bool
    """The membership connection is there."""
    expelled: bool = False
    """Removed by the others, and not a member again yet."""
    missed: bool = False
    """Notifications do not tell of events: they were lost several times in a row, or nobody rings."""
    frontier_held_s: float = 0.0
    failing_s: dict[str, float] = field(default_factory=dict)
    """Projection → for how long it has been trying a failing event."""
    failing_keys: dict[str, int] = field(default_factory=dict)
    """Projection → how many of its keys wait here, retrying or parked."""
    resting: dict[str, str] = field(default_factory=dict)
    """Projection → paused or halted, if it is."""
    refused: frozenset[str] = frozenset()
    """Projections it was to run and does not, since they are recorded with another filter."""
    away: frozenset[str] = frozenset()
    """Projections that it leaves to other workers for a while, since what fails here succeeds there."""
    idle: bool = False
    """It has nothing else to run."""
    unserved_s: dict[str, float] = field(default_factory=dict)
    """Projection of the replica set → for how long no worker has run it."""
    stalls: tuple[Stall, ...] = ()
    """What does not go on, however shortly."""


@dataclass(frozen=True, slots=True)
class Health:
    """The answer of each page, and why."""

    live: bool
    ready: bool
    well: bool
    reasons: tuple[str, ...]
    """What is wrong, degraded states included; empty when all is as it should be."""

    @property
    def word(self) -> str:
        """The answer in a word."""
        if not self.well:
            return "unhealthy"
        return "degraded" if self.reasons else "ok"


def assess(facts: Facts) -> Health:
    """Return what the pages say."""
    dead = [text for text, true in _dead(facts) if true]
    out = dead + [text for text, true in _out(facts) if true]
    ill = out + [text for text, true in _ill(facts) if true]
    degraded = [text for text, true in _degraded(facts) if true]
    starting = facts.state in {WorkerState.STARTING, WorkerState.JOINING}
    return Health(not dead, not (out or starting), not ill, tuple(ill + degraded))


def _dead(facts: Facts) -> list[tuple[str, bool]]:
    # Before it has registered it does not look: that waits for a database, and no restart brings one.
    overdue = facts.age_s > facts.age_max_s and facts.state is not WorkerState.STARTING
    return [
        ("stopped", facts.state is WorkerState.STOPPED),
        ("has not looked at its replica set for too long", overdue),
    ]


def _out(facts: Facts) -> list[tuple[str, bool]]:
    refused = bool(facts.refused)
    too_long = facts.state is WorkerState.REBALANCING and facts.rebalancing_s > facts.rebalancing_max_s
    lost = not facts.listens and facts.state is not WorkerState.STARTING
    return [
        ("draining", facts.state is WorkerState.STOPPING),
        ("database unavailable", facts.state is WorkerState.UNAVAILABLE),
        ("membership connection lost", lost),
        ("removed by the others, joining anew", facts.expelled),
        ("rebalancing for too long", too_long),
        (f"nothing to run until a filter is accepted: {', '.join(sorted(facts.refused))}", refused and facts.idle),
    ]


def _failing_s(facts: Facts) -> dict[str, float]:
    """Return those of `failing_s` that are being tried: what rests tries nothing, whatever it had in hand before."""
    return {name: age_s for name, age_s in facts.failing_s.items() if name not in facts.resting}


def _ill(facts: Facts) -> list[tuple[str, bool]]:
    stuck = sorted(name for name, age_s in _failing_s(facts).items() if age_s > STUCK_AFTER_S)
    return [
        (LOG_HELD, facts.frontier_held_s > HELD_AFTER_S),
        (f"stopped by a failing event: {', '.join(stuck)}", bool(stuck)),
        *((str(stall), stall.for_s > STALLED_TOO_LONG_S) for stall in facts.stalls),
    ]


def _degraded(facts: Facts) -> list[tuple[str, bool]]:
    refused = bool(facts.refused)
    retrying = sorted(name for name, age_s in _failing_s(facts).items() if age_s <= STUCK_AFTER_S)
    return [
        ("notifications do not arrive, polling works", facts.missed),
        (f"trying a failing event again: {', '.join(retrying)}", bool(retrying)),
        *((keys_wait(name, keys), keys > 0) for name, keys in sorted(facts.failing_keys.items())),
        *((rests(name, state), True) for name, state in sorted(facts.resting.items())),
        *((unserved(name), age_s > UNSERVED_AFTER_S) for name, age_s in sorted(facts.unserved_s.items())),
        (f"not run here, recorded with another filter: {', '.join(sorted(facts.refused))}", refused and not facts.idle),
        (
            f"not run here for a while, what fails here succeeds elsewhere: {', '.join(sorted(facts.away))}",
            bool(facts.away),
        ),
        *((str(stall), stall.lasts and stall.for_s <= STALLED_TOO_LONG_S) for stall in facts.stalls),
    ]
