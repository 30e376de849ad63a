"""How wide windows may be, what ends a gap, and in whose way a failing event is."""

from __future__ import annotations

import datetime as dt
import uuid

import pytest

from reactive_orch.core.attempts import Attempts
from reactive_orch.core.progress import SPAN_MAX, WIDER_AFTER, Batch, Progress
from reactive_orch.model import Checkpoint, Event, Position, Window

EVENT = Event(
    *(5, 1, "c", "T", "7", 1, uuid.UUID(int=5), "E", 1, b"", None, None, None, "{}"),
    dt.datetime(2026, 1, 1, tzinfo=dt.UTC),
)


def emptied(progress: Progress, settled: Position) -> Window:
    """Pass the next window, in which nothing is found."""
    window = progress.window(settled, progress.batch_events)
    assert window is not None
    progress.passed(window, window.high, progress.plan(window, (), window.high))
    return window


def width(window: Window) -> int:
    return window.high - window.low


FAR = 1 << 60


def test_a_window_that_took_too_long_is_halved_and_stays_so_for_a_while() -> None:
    progress = Progress(batch_events=10, partitions_total=4)
    progress.take({p: Checkpoint(0, 0) for p in range(4)})
    while width(too_wide := emptied(progress, FAR)) < 5000:
        pass
    progress.narrow(too_wide)
    widths = [width(emptied(progress, FAR)) for _ in range(WIDER_AFTER + 1)]
    assert widths == [width(too_wide) // 2] * WIDER_AFTER + [width(too_wide)]


def test_the_width_outlives_doubt_about_the_partitions() -> None:
    progress = Progress(batch_events=10, partitions_total=4)
    checkpoints = {p: Checkpoint(0, 0) for p in range(4)}
    progress.take(checkpoints)
    while width(too_wide := emptied(progress, FAR)) < 5000:
        pass
    progress.narrow(too_wide)
    progress.drop(progress.partitions)
    progress.take(checkpoints)
    assert max(width(emptied(progress, FAR)) for _ in range(WIDER_AFTER)) <= width(too_wide) // 2


def test_a_window_is_never_narrower_than_a_batch() -> None:
    progress = Progress(batch_events=10, partitions_total=4)
    progress.take({0: Checkpoint(0, 0)})
    for _ in range(10):
        window = progress.window(FAR, 10)
        assert window is not None
        progress.narrow(window)
    assert width(emptied(progress, FAR)) == 10


def test_a_gap_is_passed_by_those_who_stood_before_it_only() -> None:
    progress = Progress(batch_events=10, partitions_total=4)
    progress.take({0: Checkpoint(0, 0), 1: Checkpoint(SPAN_MAX + 50, 0)})
    while not progress.widest(window := progress.window(FAR, 10) or Window((), 0, 0, 0)):
        progress.passed(window, window.high, progress.plan(window, (), window.high))
    end = window.high + 7 * SPAN_MAX
    progress.passed(window, end, progress.plan(window, (), end))
    assert progress.read_to == {0: end, 1: end if 1 in window.partitions else SPAN_MAX + 50}


@pytest.mark.parametrize(
    ("read_to", "stands"),
    [
        ({1: 4, 2: 9}, True),
        ({1: 5, 2: 4}, False),  # committed, or rewound past
        ({1: 3, 2: 4}, False),  # rewound to before: it has not come yet
        ({2: 4}, False),  # given away
        ({}, False),
    ],
)
def test_a_failing_event_is_in_the_way_of_its_own_partition_only(read_to: dict[int, int], *, stands: bool) -> None:
    attempts = Attempts()
    assert not attempts.stands(read_to)
    events = [EVENT]
    attempts.failed(Batch(events, (), {1: 4, 2: 4}), 0)
    assert attempts.stands(read_to) == stands
