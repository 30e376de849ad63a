"""Who waits for a lane, whom it serves when, and why a position is said not to be handled."""

from __future__ import annotations

import json

import pytest

from reactive_orch.core.awaiters import KEPT_MAX, KEPT_S, SESSIONS, Awaiters, awaiter_of, reason
from reactive_orch.model import OWN_LOG, Subscription
from reactive_orch.model.awaiter import Awaiter, Standing


def waiting(session: int = 1, position: int = 10, partitions: set[int] | None = None) -> Awaiter:
    return Awaiter(
        "shop",
        Subscription("orders", OWN_LOG),
        session,
        position,
        None if partitions is None else frozenset(partitions),
    )


def test_it_is_told_in_json() -> None:
    told = json.dumps(["shop", "orders", "events", 1, 10, [3, 7]])
    assert awaiter_of(told) == waiting(partitions={3, 7})
    assert awaiter_of(json.dumps(["shop", "orders", "events", 1, 10, None])) == waiting()


@pytest.mark.parametrize(
    "told",
    [
        *("", "{}", "7", "[]", "[1,2,3]"),
        *('["a","b","c",null,1,null]', '["a","b","c",1,"x",null]', '["a","b","c",1,1,["x"]]'),
        *('["a","b","c",-1,1,null]', f'["a","b","c",{SESSIONS},1,null]', '["a","b","c",1,1e999,null]'),
        '["a","b","c",1,1,7]',
        pytest.param("[" * 7990, id="too deep"),
    ],
)
def test_what_cannot_be_tells_nothing(told: str) -> None:
    assert awaiter_of(told) is None


def test_who_waits_is_served_when_all_that_he_waits_for_has_been_read() -> None:
    awaiters = Awaiters()
    awaiters.add(waiting(1, 10, {3}), 0.0)
    awaiters.add(waiting(2, 10, {3, 4}), 0.0)
    awaiters.add(waiting(3, 12, None), 0.0)
    assert awaiters.take_served({3: 9, 4: 9}, 1.0) == []
    assert [each.session for each in awaiters.take_served({3: 10, 4: 9}, 1.0)] == [1]
    assert [each.session for each in awaiters.take_served({3: 10, 4: 11}, 1.0)] == [2]
    assert [each.session for each in awaiters.take_served({3: 12, 4: 13}, 1.0)] == [3]
    assert not awaiters


def test_partitions_of_other_lanes_are_their_business() -> None:
    awaiters = Awaiters()
    awaiters.add(waiting(1, 10, {3, 50}), 0.0)
    awaiters.add(waiting(2, 10, {50}), 0.0)
    assert [each.session for each in awaiters.take_served({3: 10}, 1.0)] == [1]
    assert not awaiters


def test_who_says_nothing_any_more_is_forgotten() -> None:
    awaiters = Awaiters()
    awaiters.add(waiting(1), 0.0)
    awaiters.add(waiting(2), 0.0)
    awaiters.add(waiting(2), KEPT_S)
    assert awaiters.take_served({3: 9}, KEPT_S + 0.1) == []
    assert [each.session for each in awaiters.take_served({3: 10}, KEPT_S + 0.1)] == [2]


def test_no_more_are_kept_than_there_is_room_for() -> None:
    awaiters = Awaiters()
    for session in range(KEPT_MAX + 5):
        awaiters.add(waiting(session), 0.0)
    awaiters.add(waiting(0, 11), 0.0)
    served = awaiters.take_served({3: 11}, 1.0)
    assert len(served) == KEPT_MAX
    assert served[0] == waiting(0, 11)


STANDING = Standing(found=True, checkpoint=7, workers=2, state="running", key_state=None, error_type=None)


BEHIND = "position 7, 1,003 positions behind"
UNCOMMITTED = "there is no event at this position: has its transaction been committed?"
BEFORE = STANDING._replace(found=False, checkpoint=None, workers=0)


@pytest.mark.parametrize(
    ("standing", "whole", "said"),
    [
        (STANDING, False, f"the partition is at {BEHIND}"),
        (STANDING, True, f"its slowest partition is at {BEHIND}"),
        (STANDING._replace(workers=0), False, "no worker runs it"),
        (STANDING._replace(workers=0, state="paused"), False, "the projection is paused"),
        (STANDING._replace(state="halted", key_state="parked", error_type="E"), False, "its key is parked after E"),
        (
            STANDING._replace(key_state="retrying", error_type="E"),
            True,
            "a key with an event up to there is retrying after E",
        ),
        (BEFORE, False, UNCOMMITTED),
        (BEFORE, True, "no worker runs it"),
        (BEFORE._replace(state=None), False, "no worker has ever run this projection"),
    ],
)
def test_the_gravest_reason_is_said(standing: Standing, whole: bool, said: str) -> None:  # noqa: FBT001
    assert reason(standing, 1010, whole=whole) == said
