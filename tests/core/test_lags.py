"""What is remembered of lags, and how it is plotted."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from itertools import pairwise

import pytest

from reactive_orch.core.lags import KEPT_S, Lags, Sample, bars, bins
from reactive_orch.core.overview import overview
from tests.core.test_overview import AT, PROJECTION, TOTALS, WORKER, seen


@pytest.mark.parametrize(
    ("numbers", "plot"),
    [
        ([], ""),
        ([0, 0], "▁▁"),
        ([0, 1, 700], "▁▂█"),
        ([None, 5, None, 0], " █ ▁"),
        ([1, 2, 3, 4, 5, 6, 7], "▂▃▄▅▆▇█"),
        ([10**12, 1], "█▂"),
    ],
)
def test_a_bar_is_as_high_as_its_number_and_only_nothing_is_lowest(numbers: list[int | None], plot: str) -> None:
    assert bars(numbers) == plot


def test_now_is_at_the_right_and_each_bin_has_the_largest_of_its_samples() -> None:
    samples = [Sample(1000.0, 5), Sample(1031.0, 7), Sample(1032.0, 3), Sample(1090.0, 1)]
    assert bins(samples, 4) == [5, 7, None, 1]
    assert bins(samples, 0) == []
    assert bins([], 3) == [None, None, None]
    assert bins([Sample(1000.0, None)], 1) == [None]


def test_what_is_past_moves_and_keeps_its_shape() -> None:
    samples = [Sample(1000.0 + second, second * second % 97) for second in range(60)]
    plots = [bins(samples[: 30 + more], 24) for more in range(30)]
    for before, after in pairwise(plots):
        past = [number for number in before if number is not None][:-1]
        assert past == [number for number in after if number is not None][: len(past)]


def test_two_minutes_are_kept_of_those_that_are_there() -> None:
    lags = Lags()
    for second in range(0, 300, 10):
        waiting = replace(
            seen(projection=replace(PROJECTION, saved=(1_000 - second,) * 4)), at=AT + timedelta(seconds=second)
        )
        lags.add(overview(replace(waiting, workers=[replace(WORKER, account=None)])))
    assert lags.plot("shop", TOTALS, int(KEPT_S / 10)) == "▅▆▆▆▆▇▇▇▇███"
    assert lags.plot("other", TOTALS, 3) == "   "
    lags.add(overview(replace(seen(), projections=[])))
    assert lags.plot("shop", TOTALS, 3) == "   "
