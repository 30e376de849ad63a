"""How many events are left: from positions, by how many of these were events of late."""

from __future__ import annotations

from reactive_orch.core.remaining import Remaining


def test_before_anything_is_read_each_position_may_be_an_event() -> None:
    assert Remaining().seen(0, 1000, 64) == 1000


def test_a_filter_that_passes_every_tenth_shows_as_the_log_is_read() -> None:
    remaining = Remaining()
    remaining.seen(0, 1000, 64)
    assert remaining.seen(20, 800, 64) == 80


def test_a_gap_that_was_passed_at_once_is_soon_forgotten() -> None:
    remaining = Remaining()
    remaining.seen(0, 1_000_000, 64)
    assert remaining.seen(0, 10_000, 64) == 0
    left = [remaining.seen(100 * look, 10_000 - 100 * look, 64) for look in range(1, 50)]
    assert left[-1] > 4000


def test_what_goes_with_its_partitions_is_not_counted_as_read() -> None:
    remaining = Remaining()
    remaining.seen(0, 1000, 64)
    remaining.seen(100, 900, 64)
    assert remaining.seen(100, 450, 32) == 450


def test_what_is_appended_meanwhile_is_left_too() -> None:
    remaining = Remaining()
    remaining.seen(0, 1000, 64)
    remaining.seen(100, 900, 64)
    assert remaining.seen(110, 950, 64) == 950
