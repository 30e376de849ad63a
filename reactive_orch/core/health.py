"""What a worker answers when asked how it is: what its state and its troubles mean to whoever asks.

live     if not, only a restart helps; the database's state and the lag do not count
ready    it takes part, and may be counted upon in a rolling deployment
well     nothing needs a person
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from reactive_orch.core.problems import HELD_AFTER_S, made
from reactive_orch.core.problems import held as log_held
from reactive_orch.model import WorkerState
from reactive_orch.model.problems import keys
from reactive_orch.model.reports import Subject

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from reactive_orch.model import Holder, LogName, Subscription
    from reactive_orch.model.membership import Resting
    from reactive_orch.model.problems import Level, Problem, Spoils

STUCK_AFTER_S = 10.0
"""A projection that has been trying the same event for so long has been stopped by it."""
UNSERVED_AFTER_S = 30.0
"""A projection that no worker has run for so long is not one that is just being handed over. `core.problems` tells of
it at once: the tables do not say since when, and who asks for `status` knows of the deployment that is under way."""
STALLED_AFTER_S = 10.0
"""What has not moved for so long is said. Sooner would accuse a busy worker: it saves what it read without finding an
event every 5 s, and a statement may take as long before it is given up and tried again."""
STALLED_TOO_LONG_S = 30.0
"""Then it needs a person: a restart of the server, or a failover (10 to 14 s), is over by then, and the longest pause
between attempts is 5 s."""


@dataclass(frozen=True, slots=True)
class Stall:
    """Something that should go on and does not."""

    of: Subject
    for_s: float
    cause: str = ""
    """The type and code of the error that was passed over last, or what it waits for; empty when unknown."""
    what: str = ""
    """What does not succeed; empty for a projection that makes no progress."""

    @property
    def lasts(self) -> bool:
        """Whether it has gone on for long enough to be said."""
        return self.for_s > STALLED_AFTER_S

    @property
    def problem(self) -> Problem:
        """What is said of it."""
        too_long = self.for_s > STALLED_TOO_LONG_S
        lasting = f" for {self.for_s:.0f} s" if self.what else ""
        return made(
            "interrupted" if self.what else "stands_still",
            self.of,
            what=self.what,
            more=lasting + _by(self.cause),
            level="bad" if too_long else "warn",
            spoils="well" if too_long else "nothing",
            age_s=self.for_s,
        )


def _by(cause: str) -> str:
    return f": {cause}" if cause else ""


class Held(NamedTuple):
    """A log that writers hold."""

    for_s: float
    holders: Sequence[Holder] = ()
    """Who they were when last asked, the oldest first; empty before that."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What a worker knows of itself, without asking the database. Ages are in seconds."""

    replica_set: str
    state: WorkerState
    age_s: float
    """Since it last began to look at its replica set."""
    age_max_s: float
    generation: int = 0
    """The one it has adopted, or is adopting."""
    rebalancing_s: float = 0.0
    rebalancing_max_s: float
    listens: bool
    """The membership connection is there."""
    unreachable_by: str = ""
    """The type and code of the error by which the database cannot be reached, or not for a new membership connection;
    empty when unknown."""
    expelled: bool = False
    """Removed by the others, and not a member again yet."""
    shortage: str | None = None
    """Why the server refuses connections; None if it does not."""
    unrung: frozenset[LogName] = frozenset()
    """Logs whose writers do not ring, so that they are looked at by the clock."""
    missed: frozenset[LogName] = frozenset()
    """Logs of whose events no notification told, several times in a row."""
    held: Mapping[LogName, Held] = field(default_factory=dict)
    failing_s: Mapping[Subscription, float] = field(default_factory=dict)
    """For how long a projection has been trying a failing event."""
    failing_keys: Mapping[Subscription, int] = field(default_factory=dict)
    """How many keys of a projection wait here, retrying or parked."""
    resting: Mapping[Subscription, Resting] = field(default_factory=dict)
    refused: frozenset[Subscription] = frozenset()
    """What it was to run and does not, as it is recorded with another filter."""
    given_up: frozenset[Subscription] = frozenset()
    """What of that it has run before another filter was accepted."""
    away: frozenset[Subscription] = frozenset()
    """What it leaves to other workers for a while, since what fails here succeeds there."""
    one_at_a_time: frozenset[Subscription] = frozenset()
    """Projections whose batches go one at a time, after a deadlock of handlers."""
    idle: bool = False
    """It has nothing else to run."""
    unserved_s: Mapping[Subscription, float] = field(default_factory=dict)
    """For how long no worker has run a projection of the replica set."""
    stalls: tuple[Stall, ...] = ()
    """What does not go on, however shortly."""

    @property
    def frontier_held_s(self) -> float:
        """For how long the log has been held that is held longest."""
        return max((held.for_s for held in self.held.values()), default=0.0)


@dataclass(frozen=True, slots=True)
class Health:
    """The answer of each page, and why."""

    live: bool
    ready: bool
    well: bool
    problems: tuple[Problem, ...]
    """What is wrong, the gravest first, degraded states included; empty when all is as it should be."""

    @property
    def reasons(self) -> tuple[str, ...]:
        """What is wrong, and whose it is, in words."""
        return tuple(each.text for each in self.problems)

    @property
    def word(self) -> str:
        """The answer in a word."""
        if not self.well:
            return "unhealthy"
        return "degraded" if self.problems else "ok"


_PAGES: tuple[Spoils, ...] = ("live", "ready", "well", "nothing")


def assess(facts: Facts) -> Health:
    """Return what the pages say."""
    problems = tuple(sorted(own_problems(facts), key=lambda each: _PAGES.index(each.spoils)))
    spoilt = {page for each in problems for page in _PAGES[_PAGES.index(each.spoils) :]}
    starting = facts.state in {WorkerState.STARTING, WorkerState.JOINING}
    return Health("live" not in spoilt, not ("ready" in spoilt or starting), "well" not in spoilt, problems)


def own_problems(facts: Facts) -> list[Problem]:
    """Return all that a worker knows of."""
    return [*_of_process(facts), *_of_worker(facts), *_of_projections(facts)]


def _of_process(facts: Facts) -> Iterator[Problem]:
    if not facts.listens and facts.state is not WorkerState.STARTING:
        yield made("disconnected", more=_by(facts.unreachable_by))
    if facts.shortage is not None:
        yield made("connection_refused", what=facts.shortage)
    for log, held in facts.held.items():
        if held.for_s > HELD_AFTER_S:
            yield log_held(log, held.holders[0] if held.holders else None, held.for_s)
    for log in sorted(facts.unrung):
        yield made("unrung", Subject("", "", log))
    for log in sorted(facts.missed):
        yield made("notifications_missed", Subject("", "", log))


def _of_worker(facts: Facts) -> Iterator[Problem]:
    # Before it has registered it does not look: that waits for a database, and no restart brings one.
    overdue = facts.age_s > facts.age_max_s and facts.state is not WorkerState.STARTING
    told = {
        "stopped": facts.state is WorkerState.STOPPED,
        "overdue": overdue,
        "draining": facts.state is WorkerState.STOPPING,
        "unavailable": facts.state is WorkerState.UNAVAILABLE,
        "expelled": facts.expelled,
        "nothing_to_run": bool(facts.refused) and facts.idle,
    }
    of = Subject(facts.replica_set, "", "")
    more = {"unavailable": _by(facts.unreachable_by)}
    yield from (made(code, of, more=more.get(code, "")) for code, true in told.items() if true)
    if facts.state is WorkerState.REBALANCING and facts.rebalancing_s > facts.rebalancing_max_s:
        age_s = facts.rebalancing_s
        yield made("unsettled", of, what=facts.generation, level="bad", spoils="ready", age_s=age_s)
    yield from (stall.problem for stall in facts.stalls if stall.lasts)


def _of_projections(facts: Facts) -> Iterator[Problem]:
    def of(each: Subscription) -> Subject:
        return Subject(facts.replica_set, *each)

    for each, age_s in sorted(facts.failing_s.items()):
        if each not in facts.resting:  # what rests tries nothing, whatever it had in hand before
            stuck = age_s > STUCK_AFTER_S
            level: Level = "bad" if stuck else "warn"
            yield made("retrying", of(each), level=level, spoils="well" if stuck else "nothing", age_s=age_s)
    for each, number in sorted(facts.failing_keys.items()):
        if number:
            # Which of them are parked it does not know, as only their number stands in the checkpoints: so it warns,
            # where `core.problems`, which sees their rows, only notes keys that are all retried.
            yield made("keys_wait", of(each), what=keys(number))
    for each, resting in sorted(facts.resting.items()):
        yield made(resting.state, of(each), more=f": {resting.reason}" if resting.reason else "")
    for each, age_s in sorted(facts.unserved_s.items()):
        if age_s > UNSERVED_AFTER_S:
            yield made("unserved", of(each), age_s=age_s)
    yield from (_refused(of(each), facts, each) for each in sorted(facts.refused))
    for code, found in _found(facts).items():
        yield from (made(code, of(each)) for each in sorted(found))


def _refused(of: Subject, facts: Facts, each: Subscription) -> Problem:
    if each in facts.given_up and each not in facts.unserved_s:  # others run it, as somebody has wanted it
        return made("refused", of, level="note", command="")
    return made("refused", of)


def _found(facts: Facts) -> Mapping[str, frozenset[Subscription]]:
    return {"stepped_down": facts.away, "deadlocks": facts.one_at_a_time}
