"""Who holds the frontier: told of when it is over, if it was for long."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import pytest

from reactive_orch.model import OWN_LOG
from reactive_orch.model.reports import FrontierReleased
from reactive_orch.runtime.reading import hold_watch
from reactive_orch.runtime.reading.hold_watch import HELD_AFTER_S, HoldWatch

if TYPE_CHECKING:
    from reactive_orch.model.reports import Report
    from reactive_orch.postgres.connection import BatchConnection

NOT_ASKED = cast("BatchConnection", None)


@dataclass
class Clock:
    """The monotonic clock, by hand."""

    now: float = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    hands = Clock()
    monkeypatch.setattr(hold_watch, "time", hands)
    return hands


async def test_a_long_hold_is_told_of_when_it_is_over(clock: Clock) -> None:
    told: list[Report] = []
    watch = HoldWatch(OWN_LOG, told.append)
    await watch.look(NOT_ASKED, 7)
    clock.now += HELD_AFTER_S + 0.5
    assert watch.held_s == HELD_AFTER_S + 0.5
    watch.released(9)
    assert told == [FrontierReleased(OWN_LOG, 9, [], HELD_AFTER_S + 0.5)]
    assert watch.held_s == 0


async def test_a_short_one_is_not(clock: Clock) -> None:
    told: list[Report] = []
    watch = HoldWatch(OWN_LOG, told.append)
    await watch.look(NOT_ASKED, 7)
    clock.now += HELD_AFTER_S / 2
    await watch.look(NOT_ASKED, 7)
    watch.released(9)
    assert told == []


async def test_what_nobody_can_see_is_not_told_of(clock: Clock) -> None:
    told: list[Report] = []
    watch = HoldWatch(OWN_LOG, told.append)
    await watch.look(NOT_ASKED, 7)
    clock.now += HELD_AFTER_S + 0.5
    watch.forget()
    watch.released(9)
    assert told == []
