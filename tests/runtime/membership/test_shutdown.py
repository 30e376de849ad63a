"""When a worker's life is over: asked to stop, come to the end, or waited for long enough."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import pytest

from reactive_orch.errors import ConfigError
from reactive_orch.model import OWN_LOG
from reactive_orch.runtime.membership import shutdown
from reactive_orch.runtime.membership.leaving import LEAVE_TIMEOUT_S
from reactive_orch.runtime.membership.shutdown import Shutdown

if TYPE_CHECKING:
    from collections.abc import Mapping

    from reactive_orch.model import LogName, Position
    from reactive_orch.runtime.handling.runners import Runners
    from reactive_orch.runtime.reading.follower import LogFollower

GRACE_S = 30.0


@dataclass
class Clock:
    """The monotonic clock, by hand."""

    now: float = 1000.0

    def monotonic(self) -> float:
        return self.now


@dataclass
class Work:
    """What the runners have done so far."""

    reconciled: bool = True
    read_to: Position = 0
    logs: frozenset[LogName] = frozenset([OWN_LOG])

    def have_read_to(self, positions: Mapping[LogName, Position]) -> bool:
        assert positions.keys() == self.logs
        return self.read_to >= max(positions.values())


@dataclass
class Log:
    """A log that was settled up to a position when last looked at."""

    settled: Position
    looked_at: float

    def settled_since(self, moment_s: float) -> Position | None:
        return self.settled if self.looked_at >= moment_s else None


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    hands = Clock()
    monkeypatch.setattr(shutdown, "time", hands)
    return hands


def begun(*, until_idle: bool = False) -> Shutdown:
    ending = Shutdown(until_idle=until_idle, grace_s=GRACE_S)
    ending.work_begins()
    return ending


def due(ending: Shutdown, log: Log, work: Work, incarnation: int = 1, **others: Log) -> bool:
    followers = {name: cast("LogFollower", each) for name, each in {OWN_LOG: log, **others}.items()}
    return ending.is_due(followers, incarnation, cast("Runners", work))


def over(ending: Shutdown, work: Work, *, left: bool) -> bool:
    return ending.is_over(cast("Runners", work), left=left)


def test_until_idle_is_until_what_was_settled_at_the_beginning_has_been_read(clock: Clock) -> None:
    ending, work = begun(until_idle=True), Work(read_to=99)
    assert not due(ending, Log(100, clock.now - 1), work), "what was seen before it began may be old"
    assert not due(ending, Log(100, clock.now), work)
    assert not due(ending, Log(200, clock.now), work), "what came since then does not count"
    work.read_to = 100
    assert due(ending, Log(200, clock.now), work)
    assert not due(ending, Log(200, clock.now), Work(reconciled=False, read_to=100)), "some partitions are not here yet"


def test_in_another_incarnation_the_end_is_another_one(clock: Clock) -> None:
    ending, work = begun(until_idle=True), Work(read_to=100)
    assert due(ending, Log(100, clock.now), work)
    assert not due(ending, Log(150, clock.now), work, incarnation=2)
    assert due(ending, Log(900, clock.now), Work(read_to=150), incarnation=2)


def test_until_idle_is_until_each_log_that_is_read_has_been_read(clock: Clock) -> None:
    ending, log = begun(until_idle=True), Log(100, clock.now)
    both = Work(read_to=150, logs=frozenset([OWN_LOG, "bookings"]))
    assert not due(ending, log, both, bookings=Log(150, clock.now - 1)), "one has not been looked at since it began"
    assert due(ending, log, both, bookings=Log(150, clock.now), audit=Log(900, clock.now)), (
        "nobody here reads the third"
    )
    assert not due(begun(until_idle=True), log, both, bookings=Log(151, clock.now))


def test_without_until_idle_it_never_ends_by_itself(clock: Clock) -> None:
    assert not due(begun(), Log(0, clock.now), Work())


def test_who_stops_is_over_when_it_has_left_and_saved(clock: Clock) -> None:
    ending = begun()
    assert not over(ending, Work(), left=True), "nobody has asked it to stop"
    ending.asked.set()
    assert not over(ending, Work(), left=False)
    assert not over(ending, Work(reconciled=False), left=True)
    assert over(ending, Work(), left=True)
    clock.now += GRACE_S + 1
    assert over(ending, Work(reconciled=False), left=False), "handlers had their grace"


def test_who_stops_waits_for_a_database_that_is_away_but_not_for_long(clock: Clock) -> None:
    ending = begun()
    ending.note(reached=False)
    clock.now += 100
    ending.asked.set()
    assert not over(ending, Work(), left=False), "the outage before it was asked does not count"
    clock.now += LEAVE_TIMEOUT_S - 0.1
    assert not over(ending, Work(), left=False)
    clock.now += 0.2
    assert over(ending, Work(), left=False)


def test_a_database_that_is_back_is_waited_for_again(clock: Clock) -> None:
    ending = begun()
    ending.asked.set()
    assert not over(ending, Work(), left=False)
    ending.note(reached=False)
    clock.now += LEAVE_TIMEOUT_S + 1
    ending.note(reached=True)
    assert not over(ending, Work(), left=False)


def test_until_idle_with_a_refused_projection_is_no_success() -> None:
    begun().check_complete({"refused"})
    with pytest.raises(ConfigError, match="not run until idle: refused, recorded with another filter"):
        begun(until_idle=True).check_complete({"refused"})
