"""Which events of a batch are replayed ones."""

from __future__ import annotations

from reactive_orch.core.progress import Progress
from reactive_orch.core.replays import marked
from reactive_orch.incarnation import NEVER
from reactive_orch.model import Checkpoint, Event, Swap, Window
from tests.events import event

SWAPS = (Swap(0, Checkpoint(2, 1, handled_to=5), 9), Swap(1, Checkpoint(2, 1, handled_to=0), 9))


def test_events_up_to_where_their_partition_has_stood_are_replayed() -> None:
    events = [event(position, partition) for position, partition in ((3, 0), (4, 1), (5, 0), (6, 0), (7, 1))]
    found = marked(events, SWAPS, ())
    assert [e.global_position for e in found if e.replayed] == [3, 5]
    assert found == tuple(events), "otherwise they are the same"
    assert not any(e.replayed for e in events), "others may have them, too"


def test_what_has_never_been_handled_is_new() -> None:
    assert [e.replayed for e in marked([event(3, 0), event(4, 0)], SWAPS, {4})] == [True, False]


def test_only_a_batch_that_begins_before_such_a_place_has_any() -> None:
    progress, other = Progress(10, 2), Progress(10, 2)
    progress.take({0: Checkpoint(2, 1, handled_to=5), 1: Checkpoint(2, 1)})

    def replays(lane: Progress, *positions: int) -> bool:
        window = Window((0, 1), 2, 9, 10)
        return lane.plan(window, tuple(event(position, 1) for position in positions), 9).replays

    assert replays(progress, 5, 6), "of whichever partition: that is looked at for each event"
    assert not replays(progress, 6, 7)
    assert not replays(progress)
    progress.move([0, 1], other)
    assert replays(other, 3)
    other.begin(NEVER)
    other.take({0: Checkpoint(2, 1), 1: Checkpoint(2, 1)})
    assert not replays(other, 3)


def test_a_replayed_event_stays_one_when_it_is_changed() -> None:
    (found,) = marked([event(3, 0)], SWAPS, ())
    assert found._replace(event_type="Other").replayed
    assert isinstance(found, Event)
