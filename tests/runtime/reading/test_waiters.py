"""Who waits for the log: each wake-up is set once, by an advance or by a look, and nobody's wish is lost."""

from __future__ import annotations

from reactive_orch.runtime.reading.waiters import Waiters
from reactive_orch.runtime.wakeup import Wakeup


async def test_an_advance_wakes_each_that_waits_once() -> None:
    waiters, one, other = Waiters(), Wakeup(), Wakeup()
    waiters.call(one)
    waiters.call(other)
    waiters.advanced()
    assert (await one.wait(0), await other.wait(0)) == (True, True)
    waiters.advanced()
    assert not await one.wait(0)


async def test_a_look_wakes_those_that_asked_for_it_whether_the_log_has_grown_or_not() -> None:
    waiters, waits, asked = Waiters(), Wakeup(), Wakeup()
    waiters.call(waits)
    waiters.ask(asked)
    waiters.looked()
    assert (await waits.wait(0), await asked.wait(0)) == (False, True)
    waiters.looked()
    assert not await asked.wait(0)


async def test_somebody_who_waits_is_a_reason_to_look_until_the_log_has_grown() -> None:
    waiters, wakeup = Waiters(), Wakeup()
    assert not await waiters.wanted(0)
    waiters.call(wakeup)
    assert await waiters.wanted(0)
    assert await waiters.wanted(0), "it still waits"
    waiters.advanced()
    waiters.looked()
    assert await waiters.wanted(0), "the call itself, which nobody has heeded yet"
    assert not await waiters.wanted(0)


async def test_a_wish_for_a_look_is_heeded_once() -> None:
    waiters = Waiters()
    waiters.ask(Wakeup())
    assert await waiters.wanted(0)
    assert not await waiters.wanted(0)
    waiters.hurry()
    assert await waiters.wanted(0)
    assert not await waiters.wanted(0)
