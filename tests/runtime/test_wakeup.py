"""A wake-up tells who woke: what others want to be seen is never taken for the worker's own."""

from __future__ import annotations

import pytest

from reactive_orch.runtime.wakeup import WORK, Wakeup


@pytest.mark.parametrize(
    ("set_by", "source"),
    [
        ([], "timer"),
        ([WORK], WORK),
        ([WORK, WORK], WORK),
        (["notify", WORK], "notify"),
        ([WORK, "notify", WORK], "notify"),
        (["watch", "notify"], "watch"),
    ],
)
async def test_who_woke(set_by: list[str], source: str) -> None:
    wakeup = Wakeup()
    for each in set_by:
        wakeup.set(each)
    assert await wakeup.wait(timeout_s=0) is bool(set_by)
    assert wakeup.source == source
    assert not await wakeup.wait(timeout_s=0)
    assert wakeup.source == "timer"
