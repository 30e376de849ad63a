"""All that a worker runs, asked and told as one: what it should hold, what it holds, and whether that is the same."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import anyio
import pytest

from reactive_orch.errors import ProjectionFailed, Unavailable
from reactive_orch.incarnation import Incarnation
from reactive_orch.model import OWN_LOG, Checkpoint, Subscription, Swap
from reactive_orch.runtime.handling import halting
from reactive_orch.runtime.handling import runner as runner_module
from reactive_orch.runtime.handling.runners import Runners

if TYPE_CHECKING:
    from reactive_orch.runtime.handling.runner import Runner
    from tests.runtime.handling.conftest import Making

A, B = Subscription("a", OWN_LOG), Subscription("b", OWN_LOG)
SOME = frozenset({0, 1, 2})


@pytest.fixture
def runners(runner_of: Making) -> Runners:
    runners = Runners()
    runners.add([runner_of("a"), runner_of("b", lanes=1)])
    return runners


def load(runner: Runner, *, position: int = 5, epoch: int = 1) -> None:
    """Load what the runner lacks."""
    rows = dict.fromkeys(runner.assigned, Checkpoint(position, epoch))
    runner.lanes.deal(runner.assigned, rows, position, Incarnation(0))


def reconciled(runners: Runners) -> bool:
    return runners.reconciled


def test_nothing_to_hold_is_reconciled(runners: Runners) -> None:
    assert (runners.empty, runners.reconciled, runners.only_in_flight, runners.busy) == (True, True, True, [])


def test_they_are_reconciled_when_each_holds_what_it_should(runners: Runners) -> None:
    runners.assign({A: SOME, B: SOME})
    assert not reconciled(runners)
    load(runners.by_subscription[A])
    assert not reconciled(runners)
    load(runners.by_subscription[B])
    assert reconciled(runners)
    assert runners.held == {A: SOME, B: SOME}
    assert not runners.empty


def test_who_is_not_named_is_to_hold_nothing(runners: Runners) -> None:
    runners.assign({A: SOME, B: SOME})
    for runner in runners.by_subscription.values():
        load(runner)
    runners.assign({B: SOME})
    a = runners.by_subscription[A]
    assert a.assigned == frozenset()
    assert not reconciled(runners)
    a.lanes.release(a.lanes.held)
    assert reconciled(runners)


def test_what_is_only_in_the_hands_of_handlers_is_waited_for(runners: Runners) -> None:
    runners.assign({A: SOME})
    a = runners.by_subscription[A]
    load(a)
    runners.assign({A: frozenset({1})})
    assert not runners.only_in_flight
    first, *_ = a.lanes
    with first.in_hand.moving([Swap(0, Checkpoint(5, 1), 6)]):
        a.lanes.release(frozenset({0, 2}))
        assert (runners.only_in_flight, runners.reconciled, runners.busy) == (True, False, ["a"])
        assert runners.in_flight == {A: {0}, B: frozenset()}


def test_a_new_assignment_wakes_the_runner_and_forgets_who_waited_for_a_row(runners: Runners) -> None:
    a = runners.by_subscription[A]
    longest: tuple[float, int | None] = (3.0, 2)
    a.row_wait = longest
    assert runners.row_wait == longest
    runners.assign({})
    assert [runner.wakeup.is_set for runner in runners.by_subscription.values()] == [False, False], "it is what it was"
    runners.assign({A: SOME})
    assert a.wakeup.is_set
    assert a.row_wait == (0.0, None)


def test_how_far_all_have_read(runners: Runners) -> None:
    assert runners.have_read_to({OWN_LOG: 1000}), "nobody holds anything"
    runners.assign({A: SOME, B: SOME})
    load(runners.by_subscription[A], position=50)
    load(runners.by_subscription[B], position=40)
    assert not runners.have_read_to({OWN_LOG: 40}), "failing keys may be due"
    for runner in runners.by_subscription.values():
        for lane in runner.lanes:
            lane.aside._expects = False  # noqa: SLF001 - it has looked, and none is
    assert runners.have_read_to({OWN_LOG: 40})
    assert not runners.have_read_to({OWN_LOG: 41})


def test_a_refused_projection_is_not_wanted_and_one_given_up_is_gone(runners: Runners) -> None:
    runners.by_subscription[A].standing.refused = True
    assert runners.wanted == {B}
    runners.give_up(A)
    runners.give_up(A)
    assert runners.held == {B: frozenset()}


def test_whoever_was_not_asked_about_is_not_refused(runners: Runners) -> None:
    """While it is asked of one, another one's time away ends."""
    out, away = runners.out, runners.by_subscription[B].standing
    away.away_until = math.inf
    runners.by_subscription[A].standing.refused = True
    runners.give_up(A)
    runners.give_up(B)
    assert out.to_ask({}) == [A]
    away.away_until = 0.0
    out.refuse([A], {})
    assert (set(out.refused), out.to_ask({})) == ({A}, [B]), "it takes part again"
    out.refuse([B], {})
    assert (set(out.refused), out.to_ask({B: 1})) == ({A, B}, [B]), "it was rewound"
    out.take(B)
    assert out.to_ask({A: 1}) == [A]


def test_who_was_removed_lets_go_of_everything_at_once(runners: Runners) -> None:
    runners.assign({A: SOME, B: SOME})
    for runner in runners.by_subscription.values():
        load(runner)
    runners.drop()
    assert runners.empty
    assert reconciled(runners)


async def test_who_holds_nothing_any_more_halts_nobody(runner: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[object] = []

    async def unrecorded(*of: object) -> None:
        tried.append(of)
        if len(tried) == 2:
            runner.drop()
        raise Unavailable

    monkeypatch.setattr(halting, "record", unrecorded)
    monkeypatch.setattr(runner_module, "HALT_AGAIN_S", 0.0)
    runner.assign(SOME)
    with anyio.fail_after(10):
        await runner._halt(ProjectionFailed("it failed"), Incarnation(0))  # noqa: SLF001 - as a lane does
    assert len(tried) == 2


def test_a_rewind_is_of_one_projection(runners: Runners) -> None:
    runners.assign({A: SOME, B: SOME})
    for runner in runners.by_subscription.values():
        load(runner, epoch=1)
    runners.rewound({A: 2, B: 1})
    assert runners.held == {A: frozenset(), B: SOME}
