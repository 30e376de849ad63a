"""What becomes of a key whose first waiting event has failed."""

from __future__ import annotations

import pytest

from reactive_orch.core.keys import EVENTS_MAX, KEYS_MAX, RETRY_MOST_S, Policy, Verdict, judge, too_many
from reactive_orch.model.keys import Waiting


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
