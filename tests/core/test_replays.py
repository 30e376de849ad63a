"""Which events of a batch are replayed ones."""

from __future__ import annotations

from reactive_orch.core.replays import marked, replays
from reactive_orch.model import Checkpoint, Event, Swap
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


def test_only_a_batch_behind_such_a_place_has_any() -> None:
    assert replays(SWAPS)
    assert not replays(SWAPS[1:])
    assert not replays([Swap(0, Checkpoint(5, 1, handled_to=5), 9)])


def test_a_replayed_event_stays_one_when_it_is_changed() -> None:
    (found,) = marked([event(3, 0)], SWAPS, ())
    assert found._replace(event_type="Other").replayed
    assert isinstance(found, Event)
