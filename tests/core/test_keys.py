"""What becomes of a key whose first waiting event has failed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from reactive_orch.core.fitness import ANSWER_WITHIN_S
from reactive_orch.core.keys import EVENTS_MAX, KEYS_MAX, RETRY_MOST_S, KnownKeys, Policy, Verdict, judge, too_many
from reactive_orch.incarnation import Incarnation
from reactive_orch.model import Checkpoint, Swap
from reactive_orch.model.keys import Waiting, key_of
from tests.events import event

if TYPE_CHECKING:
    from reactive_orch.model import OnError


def test_it_is_tried_again_after_pauses_that_double_up_to_a_limit() -> None:
    pauses = [judge(attempts, Policy(1000, "park")).pause_s for attempts in (1, 2, 3, 9, 10, 1000)]
    assert pauses == [0.1, 0.2, 0.4, 25.6, RETRY_MOST_S, RETRY_MOST_S]


@pytest.mark.parametrize("retries", [0, 1, 5])
def test_after_the_last_retry_it_is_parked_or_its_projection_halts(retries: int) -> None:
    for attempts in range(1, retries + 1):
        assert judge(attempts, Policy(retries, "park")) == judge(attempts, Policy(retries, "halt"))
        assert judge(attempts, Policy(retries, "park")).action == "retry"
    for attempts in (retries + 1, retries + 2):  # the second one by request
        assert judge(attempts, Policy(retries, "park")) == Verdict("park", None)
        assert judge(attempts, Policy(retries, "halt")) == Verdict("halt", 0.0)


def test_as_many_may_wait_as_are_allowed_beside_those_that_somebody_knew_of() -> None:
    assert too_many(Waiting(KEYS_MAX, EVENTS_MAX, 0, 0)) is None
    assert "1025 keys wait" in str(too_many(Waiting(KEYS_MAX + 1, 0, 0, 0)))
    assert "100001 events wait" in str(too_many(Waiting(1, EVENTS_MAX + 1, 0, 0)))
    assert too_many(Waiting(7 + KEYS_MAX, 9 + EVENTS_MAX, 7, 9)) is None
    assert too_many(Waiting(7 + KEYS_MAX, 10 + EVENTS_MAX, 7, 9)) is not None


@pytest.mark.parametrize("on_error", ["park", "halt"])
def test_others_are_asked_before_it_is_given_up_unless_it_may_cost_their_life(on_error: OnError) -> None:
    policy = Policy(1, on_error)
    assert judge(1, policy, others=True).action == "retry"
    assert judge(2, policy, others=True) == Verdict("ask", ANSWER_WITHIN_S)
    assert judge(3, policy, 3, others=True).action == on_error


def test_keys_are_known_only_while_the_checkpoint_stands_where_they_were_read() -> None:
    known, bad, fine = KnownKeys(), event(1), event(2)._replace(aggregate_id="fine")
    before = Swap(0, Checkpoint(5, 1), 9)
    known.begin(Incarnation(1))
    assert known.unknown([before]) == [0]
    known.learn([before], [(0, key_of(bad)), (1, key_of(fine))])
    assert known.unknown([before]) == [], "the batch was rolled back, and comes again"
    assert known.among([fine, bad]) == {key_of(bad)}
    known.moved([before])
    assert known.unknown([Swap(0, Checkpoint(9, 1), 12)]) == []
    assert known.unknown([before]) == [0]
    assert known.unknown([Swap(0, Checkpoint(10, 1), 12)]) == [0], "somebody else has moved it, or a key began to fail"
    assert known.unknown([Swap(0, Checkpoint(9, 2), 12)]) == [0], "it was rewound"
    known.begin(Incarnation(2))
    assert known.unknown([Swap(0, Checkpoint(9, 1), 12)]) == [0], "it may be another server"
