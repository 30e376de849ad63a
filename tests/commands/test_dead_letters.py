"""What the list of failing keys shows of each."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from reactive_orch.commands.dead_letters import ERROR_WIDTH, HEAD, _row
from reactive_orch.commands.terminal import table
from reactive_orch.model.keys import FailingKey, Failure, Key, KeyState

AT = datetime(2026, 11, 28, 22, 26, tzinfo=UTC)


def key(state: KeyState, message: str) -> FailingKey:
    failure = Failure("ValueError", None, message, "")
    return FailingKey(
        1, "mails", "events", 3, Key("default", "Order", "4711"), state, None, 2, failure, "w", AT, AT, 5, 9
    )


def test_a_message_of_one_long_word_is_cut_and_not_left_out() -> None:
    row = table(HEAD, [_row(key("parked", "x" * 200), None)]).splitlines()[1]
    assert row.endswith(f"  ValueError: {'x' * (ERROR_WIDTH - 13)}…")


@pytest.mark.parametrize(("state", "shown"), [("retrying", "halted"), ("parked", "parked")])
def test_nothing_is_being_retried_in_a_projection_that_rests(state: KeyState, shown: str) -> None:
    assert _row(key(state, ""), "halted")[2] == shown
    assert _row(key(state, ""), None)[2] == state
