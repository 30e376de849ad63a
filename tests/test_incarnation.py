"""Memories of two incarnations of the database never meet: what was settled in one says nothing in another."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from reactive_orch.core.frontier import Frontier, Observation
from reactive_orch.core.progress import Progress
from reactive_orch.incarnation import Incarnation, Server
from reactive_orch.model import Checkpoint

ONE, TWO = Incarnation(1), Incarnation(2)
OLD = Server(5, datetime(2026, 1, 2, tzinfo=UTC), system=7, timeline=1, recovered_at=None)


def lane(incarnation: Incarnation) -> Progress:
    progress = Progress(10, 64, incarnation)
    progress.take({3: Checkpoint(100, 0)}, incarnation)
    return progress


def test_lanes_hand_over_within_an_incarnation_only() -> None:
    other = lane(ONE)
    other.drop([3])
    lane(ONE).move([3], other)
    assert other.partitions == {3}
    with pytest.raises(ValueError, match="different incarnations"):
        lane(ONE).move([3], lane(TWO))


def test_checkpoints_are_taken_within_their_incarnation_only() -> None:
    with pytest.raises(ValueError, match="different incarnations"):
        lane(TWO).take({4: Checkpoint(100, 0)}, ONE)


def test_a_window_is_of_the_incarnation_it_was_made_in() -> None:
    before, now = lane(ONE), lane(TWO)
    window = before.window(200, 10)
    assert window is not None
    assert before.plan(window, (), 200).incarnation == ONE
    with pytest.raises(ValueError, match="different incarnations"):
        now.plan(window, (), 200)
    with pytest.raises(ValueError, match="different incarnations"):
        now.passed(window, 200, before.plan(window, (), 200))


def test_a_new_incarnation_begins_with_nothing() -> None:
    progress = lane(ONE)
    progress.begin(TWO)
    assert not progress.partitions
    assert progress.incarnation == TWO


def test_a_frontier_takes_no_observation_of_another_incarnation() -> None:
    frontier = Frontier(incarnation=TWO).observe(Observation(5, frozenset(), frozenset(), TWO))
    assert (frontier.settled, frontier.incarnation) == (5, TWO)
    assert frontier.extend(7).incarnation == TWO
    with pytest.raises(ValueError, match="different incarnations"):
        frontier.observe(Observation(9, frozenset(), frozenset(), ONE))


def test_who_was_promoted_last_is_the_primary() -> None:
    promoted = replace(OLD, timeline=2, started_at=datetime(2026, 1, 1, tzinfo=UTC))
    assert OLD.precedes(promoted)
    assert not promoted.precedes(OLD)
    assert not OLD.precedes(replace(OLD, started_at=datetime(2026, 1, 3, tzinfo=UTC))), "restarted"
    assert not OLD.precedes(replace(promoted, system=8)), "another cluster altogether"
    assert not OLD.precedes(replace(promoted, database=6)), "another database"
