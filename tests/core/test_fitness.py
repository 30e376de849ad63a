"""When a worker leaves a projection to the others."""

from __future__ import annotations

from reactive_orch.core.fitness import CONTRADICTIONS_MAX, FIRST_TRIAL_WITHIN_S, PAUSES_S, Fitness
from reactive_orch.incarnation import Incarnation
from reactive_orch.model.keys import Asked

ONE, TWO = Incarnation(1), Incarnation(2)
ASKED = Asked(position=7, epoch=0, incarnation=ONE)


def contradicted(times: int) -> Fitness:
    fitness = Fitness(asked=dict.fromkeys(range(times), ASKED))
    for key in range(times):
        fitness.answered(key, handled=True)
    return fitness


def test_several_keys_that_fail_here_and_succeed_elsewhere() -> None:
    assert not contradicted(CONTRADICTIONS_MAX - 1).unfit
    assert contradicted(CONTRADICTIONS_MAX).unfit


def test_what_fails_elsewhere_too_says_nothing() -> None:
    fitness = Fitness(asked=dict.fromkeys((1, 2, 3), ASKED))
    for key in (1, 2, 3):
        fitness.answered(key, handled=False)
    assert not fitness.unfit
    assert not fitness.waits


def test_a_success_of_its_own_takes_all_back() -> None:
    fitness = contradicted(CONTRADICTIONS_MAX - 1)
    fitness.asked[9] = ASKED
    fitness.succeeded()
    assert not fitness.waits
    fitness.answered(9, handled=True)
    assert not fitness.unfit


def test_what_failed_before_the_database_was_lost_is_not_asked_for() -> None:
    fitness = Fitness(asked={1: ASKED, 2: ASKED._replace(incarnation=TWO)})
    fitness.begin(TWO)
    assert list(fitness.asked) == [2]
    fitness.begin(Incarnation(3))
    assert not fitness.waits


def test_a_suspension_that_ends_at_once_elsewhere() -> None:
    for after_s, elsewhere, unfit in ((0.1, True, True), (0.1, False, False), (FIRST_TRIAL_WITHIN_S, True, False)):
        fitness = Fitness(suspended_at=100.0)
        assert fitness.waits
        fitness.resumed(100.0 + after_s, elsewhere=elsewhere)
        assert (fitness.unfit, fitness.waits) == (unfit, False)


def test_it_steps_down_for_longer_each_time_until_something_succeeds() -> None:
    fitness = contradicted(CONTRADICTIONS_MAX)
    assert [fitness.step_down() for _ in range(8)] == [*PAUSES_S, PAUSES_S[-1], PAUSES_S[-1]]
    assert not fitness.unfit
    fitness.succeeded()
    assert fitness.step_down() == PAUSES_S[0]
