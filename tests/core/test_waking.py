"""Waking: the bell is armed by the log's rate, with two limits."""

from __future__ import annotations

import pytest

from reactive_orch.core.waking import (
    ARM_BELOW_PER_S,
    DISARM_ABOVE_PER_S,
    DISARM_QUEUE,
    LOOK_CROWD_MOST_S,
    LOOK_LEAST_S,
    LOOK_MOST_S,
    WINDOW_S,
    Waking,
)


def _after(waking: Waking, rate: float, *, seconds: float = 1.0, every_s: float = 0.05) -> Waking:
    """Let events be written at a rate, with a look now and then."""
    now, head = waking.since_s, float(waking.since or 0)
    for _ in range(round(seconds / every_s)):
        now, head = now + every_s, head + rate * every_s
        waking = waking.observe(int(head), now, disarmed=False)
    return waking


START = Waking().observe(0, 0.0, disarmed=False)


@pytest.mark.parametrize(
    ("was", "rate", "armed"),
    [
        (True, 0, True),
        (True, DISARM_ABOVE_PER_S * 0.8, True),
        (True, DISARM_ABOVE_PER_S * 1.3, False),
        (False, DISARM_ABOVE_PER_S * 1.3, False),
        (False, ARM_BELOW_PER_S * 1.3, False),
        (False, ARM_BELOW_PER_S * 0.7, True),
        (False, 0, True),
    ],
)
def test_armed_by_the_rate_with_two_limits(*, was: bool, rate: float, armed: bool) -> None:
    assert _after(Waking(was, 0.0, 0), rate).armed is armed


def test_the_rate_is_that_of_the_last_moments_not_of_an_idle_hour() -> None:
    idle = _after(START, 0, seconds=3600, every_s=10)
    assert not _after(idle, 10 * DISARM_ABOVE_PER_S, seconds=2 * WINDOW_S + 0.1).armed


def test_another_readers_word_is_taken_and_then_ones_own_rate_counts() -> None:
    told = START.observe(5, 1.0, disarmed=True)
    assert not told.armed
    assert not told.observe(6, 1.0 + WINDOW_S / 2, disarmed=True).armed
    assert told.observe(6, 1.0 + WINDOW_S, disarmed=True).armed


def test_writers_in_line_for_the_bell_disarm_it_whatever_the_rate() -> None:
    """Else, where a flush is slow, the line keeps the rate low and the low rate keeps the bell armed, for ever."""
    assert START.observe(5, 1.0, disarmed=False, queue=1).armed
    stopped = START.observe(5, 1.0, disarmed=False, queue=DISARM_QUEUE)
    assert not stopped.armed
    assert not stopped.observe(6, 1.0 + WINDOW_S / 2, disarmed=True).armed
    assert stopped.observe(6, 1.0 + WINDOW_S, disarmed=True).armed, "the line was a coincidence"


def test_a_fresh_reader_believes_that_nobody_rings() -> None:
    assert not Waking().observe(0, 0.0, disarmed=True).armed
    assert START.armed


def test_the_more_is_written_the_less_often_a_reader_looks() -> None:
    steps = [_after(START, rate).look_every_s(1) for rate in (20, 250, 500, 50_000)]
    assert steps[0] == LOOK_LEAST_S
    assert steps == sorted(steps)
    assert LOOK_LEAST_S < steps[1] < steps[2] < LOOK_MOST_S
    assert steps[3] == LOOK_MOST_S


def test_the_more_readers_the_less_often_each_looks() -> None:
    calm = _after(START, 20)
    assert calm.look_every_s(2) == 2 * LOOK_LEAST_S
    assert calm.look_every_s(50) == LOOK_CROWD_MOST_S
