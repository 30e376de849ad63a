"""Calling handlers: what may end in a commit, how long a batch lasts, and what becomes of what a handler does."""

from __future__ import annotations

import asyncio
import contextlib
import re
import sys
import time
from typing import TYPE_CHECKING

import anyio
import pytest
from opentelemetry import baggage, context

from integration_test.chaos import planted
from integration_test.harness import prepared
from integration_test.projections import handled, record
from integration_test.test_adversity import (
    assert_effects_match_checkpoints,
    checked,
    event,
    failure,
    run_until_idle,
    serving,
)
from reactive_orch import append
from reactive_orch import projection as make_projection

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from integration_test.harness import Connection
    from reactive_orch import Event


@pytest.fixture
def plant(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Plants a bug in this process, until the test's end."""

    def put(owner: object, name: str, value: object) -> None:
        monkeypatch.setattr(owner, name, value)

    monkeypatch.setattr(planted, "_put", put)
    return planted.plant


# ------------------------------------------------------------------------------------------------------- cancelled


async def _timed_out_between_two_events(database: str) -> None:
    """Let the time-out strike just when a handler returns."""

    @make_projection("handled")
    async def blocking(e: Event, tx: Connection) -> None:
        await record(tx, "handled", e)
        if e.event_type == "Bad":
            # The loop stands still, and then both are due in one turn: the time-out, and the handler's last await.
            asyncio.get_running_loop().call_soon(time.sleep, 0.5)
            await asyncio.sleep(0.01)

    async with prepared(database) as connection:
        await append(connection, [event(f"k{n}", "Bad" if n == 2 else "Good") for n in range(20)])
        with contextlib.suppress(BaseExceptionGroup):
            await run_until_idle(database, blocking, retries=0, handler_timeout_s=0.3)
        await assert_effects_match_checkpoints(connection)
        await run_until_idle(database, handled)
        await checked(connection)


async def test_a_time_out_between_two_events_commits_nothing_unhandled(database: str) -> None:
    await _timed_out_between_two_events(database)


async def test_a_deadline_that_is_moved_after_its_scope_was_cancelled_is_caught(
    database: str, plant: Callable[[str], None]
) -> None:
    plant("deadline_moved_after_its_scope_was_cancelled")
    with pytest.raises(AssertionError):
        await _timed_out_between_two_events(database)


async def _cancel_itself(_tx: Connection) -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    await asyncio.sleep(0)


async def _cancel_itself_and_return(_tx: Connection) -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()


async def _cancel_itself_and_go_on(_tx: Connection) -> None:
    with contextlib.suppress(asyncio.CancelledError):
        await _cancel_itself(_tx)


async def _await_what_is_cancelled(_tx: Connection) -> None:
    future = asyncio.get_running_loop().create_future()
    future.cancel()
    await future


async def _exit(_tx: Connection) -> None:
    sys.exit(0)


async def _close(_tx: Connection) -> None:
    raise GeneratorExit


class _Odd(BaseException):
    pass


async def _raise_odd(_tx: Connection) -> None:
    raise _Odd


async def _swallow_its_time_out(_tx: Connection) -> None:
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.sleep(60)


async def _take_long_in_a_shield(_tx: Connection) -> None:
    with anyio.CancelScope(shield=True):
        await asyncio.sleep(1.2)


OWN_ENDS: dict[str, tuple[Callable[[Connection], Awaitable[None]], str]] = {
    "cancels itself": (_cancel_itself, "CancelledError"),
    "cancels itself and returns": (_cancel_itself_and_return, "cancelled its own task"),
    "cancels itself and goes on": (_cancel_itself_and_go_on, "cancelled its own task"),
    "awaits what is cancelled": (_await_what_is_cancelled, "CancelledError"),
    "exits": (_exit, "SystemExit: 0"),
    "closes": (_close, "GeneratorExit"),
    "raises what is no Exception": (_raise_odd, "_Odd"),
    "swallows its time-out": (_swallow_its_time_out, "took longer than 1 s"),
    "takes long in a shield": (_take_long_in_a_shield, "took longer than 1 s"),
}


@pytest.mark.parametrize("batch", [False, True], ids=["event by event", "in batches"])
@pytest.mark.parametrize("end", OWN_ENDS)
async def test_a_handler_that_ends_in_an_odd_way_has_failed(database: str, end: str, batch: bool) -> None:  # noqa: FBT001
    act, says = OWN_ENDS[end]

    async def one(e: Event, tx: Connection) -> None:
        await record(tx, "handled", e)
        if e.event_type == "Bad":
            await act(tx)

    async def many(events: Sequence[Event], tx: Connection) -> None:
        for e in events:
            await one(e, tx)

    async with prepared(database) as connection:
        await append(connection, [*[event(f"other-{n}") for n in range(5)], event("k", "Bad"), *[event()] * 3])
        odd = make_projection("handled", batch=batch)(many if batch else one)
        failed = await failure(database, odd, handler_timeout_s=1.0)
        assert re.search(rf"failed at event position 6 in 1 attempts: .*({says})", str(failed))
        await assert_effects_match_checkpoints(connection)
        await run_until_idle(database, handled)
        await checked(connection)


@pytest.mark.parametrize("swallowed", [False, True], ids=["passed on", "swallowed"])
async def test_a_cancellation_from_outside_commits_nothing(database: str, swallowed: bool) -> None:  # noqa: FBT001
    at_it = asyncio.Event()

    @make_projection("handled")
    async def waiting(e: Event, tx: Connection) -> None:
        await record(tx, "handled", e)
        if e.event_type == "Bad":
            at_it.set()
            with contextlib.suppress(asyncio.CancelledError) if swallowed else contextlib.nullcontext():
                await asyncio.sleep(60)

    async def serve() -> None:
        async with serving(database, waiting):
            await asyncio.sleep(60)

    async with prepared(database) as connection:
        await append(connection, [event(), event("k", "Bad"), event()])
        task = asyncio.create_task(serve())
        async with asyncio.timeout(30):
            await at_it.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert not await connection.fetchval("SELECT count(*) FROM handled")
        await assert_effects_match_checkpoints(connection)
        await run_until_idle(database, handled)
        await checked(connection)


# ---------------------------------------------------------------------------------------------------------- in time


async def _slow_handlers(database: str) -> tuple[int, int]:
    """Return how many calls were made of 40 events, and in how many transactions they were handled."""
    calls = 0

    @make_projection("handled")
    async def slow(e: Event, tx: Connection) -> None:
        nonlocal calls
        calls += 1
        await asyncio.sleep(0.02)
        await record(tx, "handled", e)

    async with prepared(database) as connection:
        await append(connection, [event(f"k{n % 13}") for n in range(40)])
        await run_until_idle(database, slow, handler_timeout_s=1.0)
        await checked(connection)
        return calls, await connection.fetchval("SELECT count(DISTINCT txid) FROM handled")


async def test_a_batch_of_slow_handlers_commits_what_it_has(database: str) -> None:
    calls, transactions = await _slow_handlers(database)
    assert calls == 40, "each event was handled at its first call"
    assert transactions >= 3, "a tenth of the time-out holds five calls"


async def test_a_batch_cut_short_that_keeps_its_whole_swap_is_caught(
    database: str, plant: Callable[[str], None]
) -> None:
    plant("batch_cut_short_keeps_its_whole_swap")
    monitored = asyncio.timeout(10)
    with pytest.raises((AssertionError, TimeoutError, BaseExceptionGroup)):
        async with monitored:
            await _slow_handlers(database)


async def test_calls_that_send_nothing_commit_although_their_sum_is_long(database: str) -> None:
    """The sum of the calls is longer than the server lets a transaction idle: that is a call's time and 5 s."""

    @make_projection("handled")
    async def elsewhere(e: Event, tx: Connection) -> None:
        if e.aggregate_version == 1:
            await asyncio.sleep(0.45)
        await record(tx, "handled", e)

    async with prepared(database) as connection:
        await append(connection, [event(f"k{n}") for n in range(16)])
        began = time.monotonic()
        await run_until_idle(database, elsewhere, handler_timeout_s=0.5)
        assert time.monotonic() - began > 7
        await checked(connection)


async def test_a_call_has_its_whole_time_wherever_it_stands_in_a_batch(database: str) -> None:
    @make_projection("handled")
    async def quick_then_slow(e: Event, tx: Connection) -> None:
        await asyncio.sleep(0.9 if e.event_type == "Bad" else 0.03)
        await record(tx, "handled", e)

    async with prepared(database) as connection:
        await append(connection, [event(), event(), event(event_type="Bad"), event()])
        await run_until_idle(database, quick_then_slow, handler_timeout_s=1.0, retries=0)
        await checked(connection)


async def test_handlers_do_not_see_the_baggage_of_whoever_started_the_worker(database: str) -> None:
    seen: list[object] = []

    @make_projection("handled")
    async def looking(e: Event, tx: Connection) -> None:
        seen.append((dict(baggage.get_all()), dict(context.get_current())))
        await record(tx, "handled", e)

    async with prepared(database) as connection:
        await append(connection, [event()])
        token = context.attach(baggage.set_baggage("tenant", "of another"))
        try:
            await run_until_idle(database, looking)
        finally:
            context.detach(token)
        await checked(connection)
    assert seen == [({}, {})]
