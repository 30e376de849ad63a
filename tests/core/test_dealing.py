"""Which lane a partition goes to: fresh events wait for no backlog, and nothing goes to and fro."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reactive_orch.core.dealing import FAR_BEHIND_BATCHES, LaneNumber, deal
from tests.effort import examples

BATCH = 100
FAR = FAR_BEHIND_BATCHES * BATCH
SETTLED = 1_000_000

Dealt: TypeAlias = Mapping[int, LaneNumber]
Deal: TypeAlias = Callable[[Dealt, Mapping[int, int], int, int, int], dict[int, LaneNumber]]

positions_of_all = st.dictionaries(
    st.integers(0, 15),
    st.sampled_from([0, 1000, SETTLED - FAR - 1, SETTLED - FAR, SETTLED - BATCH - 1, SETTLED - BATCH, SETTLED]),
)


def check(dealt: Dealt, positions: Mapping[int, int], lanes: int, deal: Deal = deal) -> None:
    due = deal(dealt, positions, SETTLED, lanes, BATCH)
    assert due.keys() == positions.keys()
    assert all(number in {partition % lanes, lanes} for partition, number in due.items())
    assert deal(due, positions, SETTLED, lanes, BATCH) == due, "dealt again, nothing moves"
    backwards = dict(sorted(positions.items(), reverse=True))
    assert deal(dealt, backwards, SETTLED, lanes, BATCH) == due, "in whatever order they are looked at"
    for own in range(lanes):
        served = [x for p, x in positions.items() if due[p] == own]
        waiting = [x for p, x in positions.items() if p % lanes == own and due[p] == lanes]
        if any(x >= SETTLED - FAR for x in served):
            assert all(x >= SETTLED - FAR for x in served), "what is far behind delays nobody"
        assert all(x < SETTLED - BATCH for x in waiting), "who has caught up is back"
        if not dealt and all(x < SETTLED - FAR for p, x in positions.items() if p % lanes == own):
            assert not waiting, "with nobody to delay, a backlog is worked off by all lanes"


@st.composite
def anyhow(draw: st.DrawFn) -> tuple[dict[int, LaneNumber], dict[int, int], int]:
    """Draw lanes that partitions were dealt to before, some of which are gone, and where all stand now."""
    lanes = draw(st.integers(1, 3))
    catching_up = draw(st.dictionaries(st.integers(0, 15), st.booleans()))
    return {p: lanes if behind else p % lanes for p, behind in catching_up.items()}, draw(positions_of_all), lanes


@examples(300)
@given(anyhow())
def test_dealt_anyhow(drawn: tuple[dict[int, LaneNumber], dict[int, int], int]) -> None:
    check(*drawn)


@examples(200)
@given(positions_of_all, st.integers(1, 3))
def test_dealt_for_the_first_time(positions: dict[int, int], lanes: int) -> None:
    check({}, positions, lanes)


def test_a_backlog_alone_is_for_the_ordinary_lanes() -> None:
    assert deal({}, {0: 5, 1: 5, 2: 7}, SETTLED, 2, BATCH) == {0: 0, 1: 1, 2: 0}


def test_fresh_ones_that_come_later_drive_the_backlog_out() -> None:
    assert deal({0: 0, 2: 0, 1: 1}, {0: 5, 2: 5, 1: 5, 4: SETTLED}, SETTLED, 2, BATCH) == {0: 2, 2: 2, 1: 1, 4: 0}


def test_it_stays_until_a_batch_is_left_or_its_own_lane_is_idle() -> None:
    dealt = {0: 0, 1: 1}
    assert deal(dealt, {0: SETTLED, 1: SETTLED - BATCH - 1}, SETTLED, 1, BATCH) == {0: 0, 1: 1}
    assert deal(dealt, {0: SETTLED, 1: SETTLED - BATCH}, SETTLED, 1, BATCH) == {0: 0, 1: 0}
    assert deal(dealt, {0: 5 * FAR, 1: 0}, SETTLED, 1, BATCH) == {0: 0, 1: 1}, "also while its own lane lags"
    assert deal(dealt, {1: 5}, SETTLED, 1, BATCH) == {1: 0}


def test_nothing_is_far_behind_an_unknown_end() -> None:
    assert deal({}, {0: 5, 1: SETTLED}, 0, 1, BATCH) == {0: 0, 1: 0}


# The bug that was there: the partitions one after the other, each against what its lane had got so far.
def measured_from_a_neighbour(
    _dealt: Dealt, positions: Mapping[int, int], _settled: int, lanes: int, batch_events: int
) -> dict[int, LaneNumber]:
    due: dict[int, LaneNumber] = {}
    for partition, position in positions.items():
        low = min((positions[p] for p in due if due[p] == partition % lanes), default=position)
        due[partition] = lanes if position < low - FAR_BEHIND_BATCHES * batch_events else partition % lanes
    return due


def test_the_checks_find_that_bug() -> None:
    @settings(max_examples=300, derandomize=True, report_multiple_bugs=False, database=None)
    @given(positions_of_all, st.integers(1, 3))
    def run(positions: dict[int, int], lanes: int) -> None:
        check({}, positions, lanes, measured_from_a_neighbour)

    with pytest.raises(AssertionError):
        run()
