"""How many events fit into a batch, and what a batch that ends early leaves behind."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from reactive_orch.core.pace import Pace
from reactive_orch.core.progress import Progress
from reactive_orch.model import Checkpoint, Window
from tests.events import event

if TYPE_CHECKING:
    from reactive_orch.model import Event


def test_a_batch_follows_the_pace_of_its_handlers() -> None:
    pace = Pace(100)
    sizes = [pace.events]
    for handled, planned in [
        (3, 100),
        (3, 3),
        (6, 6),
        (5, 12),
        (5, 5),
        (10, 10),
        (20, 20),
        (40, 40),
        (80, 80),
        (100, 100),
    ]:
        pace.committed(handled, planned, swap_s=0.001, full=False)
        sizes.append(pace.events)
    assert sizes == [100, 3, 6, 12, 5, 10, 20, 40, 80, 100, 100]


def test_one_event_is_always_read() -> None:
    pace = Pace(1)
    pace.committed(1, 1, swap_s=0.001, full=True)
    assert pace.events == 1


@pytest.mark.parametrize(
    ("swap_s", "full", "linger_s"),
    [(0.005, False, 0.0), (0.006, False, 0.006), (0.006, True, 0.0), (0.5, False, 0.1)],
)
def test_after_a_slow_swap_a_lane_lingers(swap_s: float, linger_s: float, *, full: bool) -> None:
    pace = Pace(100)
    pace.committed(10, 10, swap_s=swap_s, full=full)
    assert pace.linger_s == linger_s


def test_a_batch_cut_short_leaves_every_event_it_did_not_handle_ahead() -> None:
    progress = Progress(batch_events=10, partitions_total=4)
    progress.take({p: Checkpoint(0, 0) for p in range(4)})
    window = Window((0, 1, 2, 3), 0, 40, 10, scattered=False)
    events: list[Event] = [event(position, position % 3) for position in (5, 9, 13, 17, 21)]
    whole = progress.plan(window, events, 40)
    done = whole.beginning(2)
    assert [e.global_position for e in done.events] == [5, 9]
    assert done.cut_at == 9
    assert {swap.partition: swap.target for swap in done.swaps} == dict.fromkeys((0, 1, 2), 9)
    progress.passed(window, 9, done)
    assert {p: row.position for p, row in progress.saved.items()} == {0: 9, 1: 9, 2: 9, 3: 0}
    assert progress.read_to == dict.fromkeys(range(4), 9)
    again = progress.window(40, 10)
    assert again is not None
    assert again.low == 9
