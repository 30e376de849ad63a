"""How often something happens of late."""

from __future__ import annotations

import pytest

from reactive_orch.core.rate import HALF_S, Rate


def test_the_second_look_tells() -> None:
    rate = Rate()
    assert rate.seen(1_000, 7.0) == 0
    assert rate.seen(1_200, 9.0) == 100


def test_what_is_old_counts_less() -> None:
    rate = Rate()
    rate.seen(0, 0.0)
    rate.seen(1_000, 10.0)
    assert rate.seen(1_000, 10.0 + HALF_S) == pytest.approx(50)
    assert rate.seen(1_000, 10.0 + 11 * HALF_S) < 0.1


def test_a_count_that_begins_anew_is_none_below_zero() -> None:
    rate = Rate()
    rate.seen(1_000, 0.0)
    assert rate.seen(10, 1.0) == 0
    assert rate.seen(10, 1.0) == 0, "the clock has not moved"
