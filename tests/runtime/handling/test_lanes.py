"""The lanes of one runner: which partitions each has, what they let go at once, and what when their batch ends."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from reactive_orch.core.dealing import FAR_BEHIND_BATCHES
from reactive_orch.incarnation import Incarnation
from reactive_orch.model import Checkpoint, Swap
from tests.runtime.handling.conftest import BATCH, PARTITIONS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from reactive_orch import Node
    from reactive_orch.runtime.handling.lanes import Lanes
    from reactive_orch.runtime.handling.runner import Runner

ALL = frozenset(range(PARTITIONS))
SETTLED = 100_000
BEHIND = SETTLED - FAR_BEHIND_BATCHES * BATCH - 1
NOW = Incarnation(0)


@pytest.fixture
def lanes(runner: Runner) -> Lanes:
    return runner.lanes


def dealt(lanes: Lanes) -> list[set[int]]:
    return [set(lane.progress.partitions) for lane in lanes]


def load(lanes: Lanes, positions: Mapping[int, int], *, settled: int = SETTLED, epoch: int = 0) -> None:
    assigned = lanes.held | positions.keys()
    lanes.deal(assigned, {p: Checkpoint(position, epoch) for p, position in positions.items()}, settled, NOW)


def swap(partition: int, position: int = SETTLED) -> Swap:
    return Swap(partition, Checkpoint(position, 0), position + 1)


def test_each_loaded_partition_has_one_lane(lanes: Lanes) -> None:
    load(lanes, dict.fromkeys(ALL, SETTLED))
    assert dealt(lanes) == [{0, 2, 4, 6}, {1, 3, 5, 7}, set()]
    assert (lanes.held, lanes.in_flight, lanes.low_water) == (ALL, frozenset(), SETTLED)


def test_what_is_not_assigned_any_more_is_not_taken(lanes: Lanes) -> None:
    lanes.deal(frozenset({0}), {0: Checkpoint(5, 0), 1: Checkpoint(5, 0)}, SETTLED, NOW)
    assert lanes.held == {0}


def test_what_is_held_already_is_not_taken_again(lanes: Lanes) -> None:
    load(lanes, {0: SETTLED})
    load(lanes, {0: 5, 1: SETTLED})
    assert lanes.low_water == SETTLED


def test_a_backlog_goes_to_the_last_lane_and_comes_back(lanes: Lanes) -> None:
    load(lanes, {0: SETTLED, 2: BEHIND, 1: BEHIND})
    assert dealt(lanes) == [{0}, {1}, {2}]
    assert lanes.catch_up
    *_, last = lanes
    last.progress.read_to[2] = SETTLED
    load(lanes, {})
    assert dealt(lanes) == [{0, 2}, {1}, set()]
    assert not lanes.catch_up


def test_a_partition_whose_batch_is_in_hand_changes_its_lane_when_that_has_ended(lanes: Lanes) -> None:
    load(lanes, {0: BEHIND, 2: BEHIND})
    first, _, last = lanes
    with first.in_hand.moving([swap(0)]):
        load(lanes, {4: SETTLED})
        assert dealt(lanes) == [{0, 4}, set(), {2}]
        assert lanes.in_flight == {0}
    assert last.wakeup.is_set


def test_what_no_batch_has_is_let_go_at_once_and_what_was_read_of_it_is_saved(lanes: Lanes) -> None:
    load(lanes, {0: SETTLED, 2: SETTLED, 1: SETTLED})
    first, second, _ = lanes
    second.progress.read_to[1] = SETTLED + 7
    with first.in_hand.moving([swap(0)]):
        unsaved = lanes.release(frozenset({0, 1, 2}))
        assert lanes.held == {0}
    assert unsaved == [Swap(1, Checkpoint(SETTLED, 0), SETTLED + 7)]


def test_nothing_is_saved_that_was_read_of_a_database_that_was_lost(lanes: Lanes, node: Node) -> None:
    load(lanes, {1: SETTLED})
    _, second, _ = lanes
    second.progress.read_to[1] = SETTLED + 7
    node.database.lost()
    assert [lane.remembers for lane in lanes] == [False] * 3
    assert not lanes.release(ALL)
    for lane in lanes:
        lane.invalidate()
    assert lanes.remember
    assert not lanes.held


def test_a_rewind_drops_what_stands_at_an_older_epoch(lanes: Lanes) -> None:
    load(lanes, {0: SETTLED}, epoch=1)
    load(lanes, {1: SETTLED}, epoch=2)
    lanes.rewound(2)
    assert lanes.held == {1}


def test_a_rewind_leaves_a_batch_in_hand_to_find_out_by_itself(lanes: Lanes) -> None:
    load(lanes, {0: SETTLED})
    first, _, _ = lanes
    with first.in_hand.moving([swap(0)]):
        lanes.rewound(1)
    assert lanes.held == {0}


def test_lag_is_that_of_the_slowest(lanes: Lanes) -> None:
    assert lanes.lag(SETTLED) == (0, 0.0)
    load(lanes, {0: SETTLED, 1: SETTLED - 40})
    positions, seconds = lanes.lag(SETTLED)
    assert positions == 40
    assert seconds >= 0
    assert lanes.lag(SETTLED - 40) == (0, 0.0)


def test_everybody_is_woken(lanes: Lanes) -> None:
    lanes.wake()
    assert all(lane.wakeup.is_set for lane in lanes)
