"""The bell, as one process has left it: what is found without a notification is a sign that none arrives."""

from __future__ import annotations

from reactive_orch.model import OWN_LOG
from reactive_orch.runtime.reading.ringing import MISSED_TIMES, Ringing
from reactive_orch.runtime.wakeup import Wakeup


def ringing(wakeup: Wakeup) -> Ringing:
    return Ringing(OWN_LOG, wakeup, lambda: True, lambda _: None)


async def test_finds_without_a_notification_are_counted_in_a_row() -> None:
    wakeup = Wakeup()
    bell = ringing(wakeup)
    for _ in range(MISSED_TIMES - 1):
        await wakeup.wait(0)
        bell.found()
    assert not bell.missed
    wakeup.set("notify")
    await wakeup.wait(0)
    bell.found()
    for n in range(MISSED_TIMES):
        assert not bell.missed, n
        await wakeup.wait(0)
        bell.found()
    assert bell.missed


def test_it_begins_as_if_it_was_armed() -> None:
    assert ringing(Wakeup()).armed
