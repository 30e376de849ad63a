"""For how long partitions stand still: what counts, what is left out, what ends it."""

from __future__ import annotations

import pytest

from reactive_orch.core.standstill import LOOK_COUNTS_MOST_S, Standing, Standstill
from reactive_orch.model import Checkpoint


def at(position: int, *, waits: bool = True, excused: bool = False) -> Standing:
    return Standing(Checkpoint(position, 0), waits, excused)


NOT_HELD = Standing(None, waits=True, excused=False)
EXCUSED = Standing(None, waits=True, excused=True)


@pytest.mark.parametrize(
    ("looks", "longest_s"),
    [
        ([at(5)], 0.0),
        ([at(5), at(5), at(5)], 2.0),
        ([at(5), at(5), at(6)], 0.0),
        ([at(5), at(5), at(5, waits=False)], 0.0),
        ([at(5), at(5), at(5, waits=False), at(5)], 1.0),
        ([NOT_HELD, NOT_HELD], 2.0),
        ([NOT_HELD, NOT_HELD, at(5)], 0.0),
        # Loaded and lost again and again, it stands where it stood.
        ([at(5), NOT_HELD, at(5), NOT_HELD, at(5)], 4.0),
        # Rewound, it stands at another epoch or position: that is a beginning.
        ([at(5), at(5), at(0)], 0.0),
        # Handlers that run and come to nothing do not begin the count anew; those that run on do not stand still.
        ([at(5), at(5, excused=True), at(5), at(5, excused=True), at(5)], 2.0),
        ([at(5), *[at(5, excused=True)] * 100], 0.0),
        ([EXCUSED] * 100, 0.0),
    ],
)
def test_what_counts(looks: list[Standing], longest_s: float) -> None:
    standstill = Standstill()
    for look in looks:
        standstill.look({7: look}, 1.0)
    assert standstill.longest_s == longest_s


def test_one_partition_that_stands_is_not_hidden_by_those_that_move() -> None:
    standstill = Standstill()
    for second in range(12):
        standstill.look({1: at(second), 2: at(3), 3: at(second)}, 1.0)
    assert standstill.longest_s == 11.0


def test_a_partition_that_is_given_away_does_not_stand_still_here() -> None:
    standstill = Standstill()
    standstill.look({1: NOT_HELD, 2: at(3)}, 1.0)
    standstill.look({2: at(3)}, 1.0)
    assert standstill.longest_s == 1.0
    standstill.look({}, 1.0)
    assert standstill.longest_s == 0.0


def test_a_look_that_was_held_up_counts_little() -> None:
    standstill = Standstill()
    standstill.look({1: NOT_HELD}, 600.0)
    assert standstill.longest_s == LOOK_COUNTS_MOST_S
