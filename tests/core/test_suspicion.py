"""Which events of suspect partitions are handled together, and who is blamed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from reactive_orch.core.keys import DEATHS_MOST, Policy, judge
from reactive_orch.core.progress import Progress
from reactive_orch.core.suspicion import Suspects
from reactive_orch.model import Checkpoint, Window
from reactive_orch.model.keys import Marker
from tests.events import event

if TYPE_CHECKING:
    from reactive_orch.core.progress import Batch

PARTITIONS = (0, 1, 2)


def batch_of(*partitions: int) -> Batch:
    """Return a batch of events of these partitions, at the positions 1, 2 and so on."""
    progress = Progress(100, len(PARTITIONS))
    progress.take({p: Checkpoint(0, 0) for p in PARTITIONS})
    events = [event(n, p) for n, p in enumerate(partitions, 1)]
    return progress.plan(Window(PARTITIONS, 0, 100, 100), events, 100)


def suspects(found: dict[int, Marker | None], events: int = 5) -> Suspects:
    suspects = Suspects()
    suspects.take(PARTITIONS, found, events)
    return suspects


def marker(position: int, events: int = 1) -> Marker:
    return Marker("lost", 7, position, events)


def test_without_a_suspicion_a_batch_stays_as_it_is() -> None:
    batch = batch_of(0, 1, 2)
    assert suspects({}).narrowed(batch) is batch
    assert not suspects({}).concern(batch.events)


def test_a_suspect_partition_alone_divides_no_batch() -> None:
    batch = batch_of(0, 1, 2)
    assert suspects({1: None}).narrowed(batch) is batch
    assert suspects({1: None}).concern(batch.events)
    assert not suspects({1: None}).concern(batch_of(0, 2).events)


@pytest.mark.parametrize(("position", "handled"), [(1, [1]), (3, [1, 2]), (2, [1, 2, 3]), (9, [1, 2, 3])])
def test_an_event_that_somebody_had_alone_in_hand_is_left_alone(position: int, handled: list[int]) -> None:
    """At position 2 there is an event of another partition, at 9 none: what had been in hand is behind us."""
    batch = suspects({0: marker(position)}).narrowed(batch_of(0, 1, 0))
    assert [e.global_position for e in batch.events] == handled
    assert all(swap.target == (100 if len(handled) == 3 else handled[-1]) for swap in batch.swaps)


@pytest.mark.parametrize(("in_hand", "handled"), [(100, 10), (45, 4), (9, 1), (2, 1)])
def test_a_batch_that_has_ended_its_process_is_divided(in_hand: int, handled: int) -> None:
    batch = suspects({0: marker(50, in_hand)}).narrowed(batch_of(*[0] * 20))
    assert len(batch.events) == handled


def test_blamed_is_one_event_of_one_partition_once() -> None:
    seen = suspects({0: marker(3), 1: marker(3, 2), 2: None})
    assert seen.killed(0, 3) == marker(3)
    assert [seen.killed(0, 4), seen.killed(1, 3), seen.killed(2, 3)] == [None] * 3
    seen.resolved(3)
    assert seen.killed(0, 3) is None
    assert seen.concern(batch_of(0).events), "it is suspect still"


def test_what_was_in_hand_is_behind_after_so_many_events() -> None:
    seen = suspects({0: None, 1: None}, events=5)
    assert seen.passed(4, {0, 1, 2}) == frozenset()
    assert seen.passed(1, {0, 1, 2}) == {0, 1}
    seen.forget({0, 1, 2})
    assert not seen.found


def test_events_of_windows_without_a_partition_put_nothing_of_it_behind() -> None:
    seen = suspects({0: None, 1: None}, events=5)
    assert seen.passed(5, {0}) == {0}
    seen.take([2], {2: None}, 5)
    assert seen.passed(4, {1, 2}) == frozenset()
    assert seen.passed(1, {1}) == {1}


def test_what_is_loaded_anew_is_as_suspect_as_the_database_says() -> None:
    seen = suspects({0: None, 1: marker(1)})
    seen.take([1], {}, 5)
    assert seen.found == {0: None}


@pytest.mark.parametrize("retries", [0, 2, 1000])
def test_an_event_is_given_up_after_as_many_deaths_whatever_retries_there_are(retries: int) -> None:
    policy = Policy(retries, "park")
    verdicts = [judge(deaths, policy, deaths) for deaths in range(1, DEATHS_MOST + 2)]
    assert [verdict.action for verdict in verdicts] == ["retry", "retry", "park", "park"]
    assert [verdict.pause_s for verdict in verdicts] == [2.0, 10.0, None, None]
    assert judge(3, Policy(retries, "halt"), DEATHS_MOST).action == "halt"
