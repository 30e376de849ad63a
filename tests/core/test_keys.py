"""What becomes of a key whose first waiting event has failed."""

from __future__ import annotations

import pytest

from reactive_orch.core.keys import RETRY_MOST_S, Policy, Verdict, judge


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
