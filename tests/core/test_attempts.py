"""A failing batch is narrowed down to the failing event, and only the attempts of that one alone are counted."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reactive_orch.core.attempts import Attempts
from reactive_orch.core.progress import Batch
from tests.events import event

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from reactive_orch.model import Event, Position


class Attempt(NamedTuple):
    first: Position
    last: Position
    failed: bool
    attempts: int
    """As counted after it."""


def failing(events: Sequence[Event], low: Position) -> Batch:
    return Batch(events, (), {0: low})


def run(poison: Mapping[Position, int], count: int, batch_events: int, *, batch_handler: bool) -> list[Attempt]:
    """Handle events 1 to `count`; each in `poison` fails as often as it says there, alone or not."""
    attempts, low, left = Attempts(), 0, dict(poison)
    tried: list[Attempt] = []
    while low < count:
        assert len(tried) < 100 * (count + sum(poison.values())), "it never ends"
        batch = [event(p) for p in range(low + 1, min(low + attempts.limit_of(low, batch_events), count) + 1)]
        index = next((i for i, e in enumerate(batch) if left.get(e.global_position)), None)
        if index is None:
            attempts.succeeded()
        else:
            left[batch[index].global_position] -= len(batch) == 1
            attempts.failed(failing(batch, low), None if batch_handler else index)
        tried.append(Attempt(low + 1, low + len(batch), index is not None, attempts.count))
        low += len(batch) if index is None else 0
    return tried


def test_the_events_before_the_failing_one_are_committed_then_it_runs_alone() -> None:
    assert run({4: 3}, 8, batch_events=8, batch_handler=False) == [
        Attempt(1, 8, failed=True, attempts=0),
        Attempt(1, 3, failed=False, attempts=0),
        Attempt(4, 4, failed=True, attempts=1),
        Attempt(4, 4, failed=True, attempts=2),
        Attempt(4, 4, failed=True, attempts=3),
        Attempt(4, 4, failed=False, attempts=0),
        Attempt(5, 8, failed=False, attempts=0),
    ]


def test_the_batch_of_a_batch_handler_is_halved_then_goes_one_by_one() -> None:
    assert run({6: 2}, 20, batch_events=8, batch_handler=True) == [
        Attempt(1, 8, failed=True, attempts=0),
        Attempt(1, 4, failed=False, attempts=0),
        Attempt(5, 5, failed=False, attempts=0),
        Attempt(6, 6, failed=True, attempts=1),
        Attempt(6, 6, failed=True, attempts=2),
        Attempt(6, 6, failed=False, attempts=0),
        Attempt(7, 14, failed=False, attempts=0),
        Attempt(15, 20, failed=False, attempts=0),
    ]


@pytest.mark.parametrize("batch_handler", [False, True])
@given(
    poison=st.dictionaries(st.integers(1, 30), st.integers(1, 4)),
    count=st.integers(1, 30),
    batch_events=st.integers(1, 12),
)
def test_attempts_isolate_every_failing_event(
    poison: dict[int, int], count: int, batch_events: int, *, batch_handler: bool
) -> None:
    tried = run(poison, count, batch_events, batch_handler=batch_handler)
    committed = [p for attempt in tried if not attempt.failed for p in range(attempt.first, attempt.last + 1)]
    assert committed == list(range(1, count + 1)), "each, once, in order"
    assert all(attempt.last - attempt.first < batch_events for attempt in tried)
    for position, failures in poison.items():
        counts = [a.attempts for a in tried if a.failed and a.first == a.last == position]
        assert counts == (list(range(1, failures + 1)) if position <= count else [])
    assert all(a.attempts == 0 for a in tried if not a.failed or a.first != a.last), "counted only alone"


def test_nothing_is_limited_behind_the_failing_event() -> None:
    attempts = Attempts()
    assert attempts.limit_of(0, 100) == 100
    attempts.failed(failing([event(p) for p in (3, 5, 9)], low=2), 1)
    assert [attempts.limit_of(low, 100) for low in (2, 4, 5, 9)] == [1, 1, 100, 100]


def test_who_is_rewound_to_before_the_failing_batch_reads_as_if_nothing_had_failed() -> None:
    attempts = Attempts()
    attempts.failed(failing([event(p) for p in (53, 55)], low=50), 1)
    assert [attempts.limit_of(low, 100) for low in (0, 49, 50)] == [100, 100, 1]


def test_attempts_of_one_event_are_not_those_of_another() -> None:
    attempts = Attempts()
    for position in (3, 3, 4):
        attempts.failed(failing([event(position)], position - 1), 0)
    assert attempts.count == 1


def test_an_event_that_cannot_be_read_is_alone_and_counted() -> None:
    attempts = Attempts()
    for position in (3, 7, 7, 7):
        attempts.unreadable(position - 2, position, 5)
    assert attempts.count == 3
    assert [attempts.limit_of(low, 100) for low in (4, 5, 6, 7)] == [100, 1, 1, 100]
    assert [attempts.stands({5: read_to, 6: 6}) for read_to in (4, 5, 6, 7)] == [False, True, True, False]


class CountsInCompany(Attempts):
    def failed(self, batch: Batch, failing: int | None) -> None:
        before = self.count
        super().failed(batch, failing)
        self.count = before + 1


class NeverAlone(Attempts):
    def failed(self, batch: Batch, failing: int | None) -> None:
        super().failed(batch, failing)
        self.limit += 1


class KeepsCounting(Attempts):
    def succeeded(self) -> None:
        self.limit = 1


@pytest.mark.parametrize("mutant", [CountsInCompany, NeverAlone, KeepsCounting])
def test_the_runs_find_a_mutant_that(mutant: type[Attempts], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "Attempts", mutant)
    with pytest.raises(AssertionError):
        test_the_events_before_the_failing_one_are_committed_then_it_runs_alone()
