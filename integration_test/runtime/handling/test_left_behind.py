"""What handlers leave behind, in their session, in their task and in the checkpoints: nobody else meets it."""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
from typing import TYPE_CHECKING

import anyio
import pytest

from integration_test.chaos import planted
from integration_test.harness.cases import EVENT_BY_EVENT_AND_IN_BATCHES
from integration_test.harness.checkers import assert_effects_match_checkpoints, checked
from integration_test.harness.connections import prepared
from integration_test.harness.in_process import acting_at_bad_events, event, failure, run_until_idle
from integration_test.harness.projections import handled, record
from reactive_orch import append
from reactive_orch import projection as make_projection
from reactive_orch.runtime.handling import setbacks

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from integration_test.harness.connections import Connection
    from reactive_orch import Event

LEFTOVERS = {
    "prepared": "PREPARE by_name AS SELECT 1",
    "prepared by an odd name": 'PREPARE "By ""name""; x" (integer) AS SELECT $1',
    "prepared in a function": "DO $$ BEGIN EXECUTE 'PREPARE by_name AS SELECT 1'; END $$",
    "waiting constraint": "CREATE TEMP TABLE counted (n integer UNIQUE DEFERRABLE INITIALLY DEFERRED); "
    "INSERT INTO counted VALUES (1), (1); DELETE FROM counted WHERE ctid = '(0,1)'",
    "waiting trigger": "CREATE TEMP TABLE counted (n integer); "
    "CREATE CONSTRAINT TRIGGER late AFTER INSERT ON counted DEFERRABLE INITIALLY DEFERRED "
    "FOR EACH ROW EXECUTE FUNCTION public.look_at_it(); INSERT INTO counted VALUES (1)",
    "table for the length of the transaction": "CREATE TEMP TABLE counted (n integer) ON COMMIT DROP",
    "short time-out and a table": "CREATE TEMP TABLE counted (n integer); SET statement_timeout = '1ms'; "
    "SET LOCAL statement_timeout = 0",
}
_LEFT = """
SELECT (SELECT count(*) FROM pg_prepared_statements WHERE from_sql),
       (SELECT count(*) FROM pg_class WHERE relname = 'counted')
"""
_LOOK_AT_IT = """
CREATE FUNCTION public.look_at_it() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN PERFORM FROM counted; RETURN NULL; END $$
"""


@pytest.mark.parametrize("leftover", LEFTOVERS)
async def test_what_a_handler_leaves_in_its_session_ends_with_the_batch(database: str, leftover: str) -> None:
    sessions: list[int] = []
    found: set[tuple[int, ...]] = set()

    @make_projection("handled")
    async def leaving(e: Event, tx: Connection) -> None:
        sessions.append(await tx.fetchval("SELECT pg_backend_pid()"))
        found.add(tuple(await tx.fetchrow(_LEFT) or ()))
        await record(tx, "handled", e)
        await tx.execute(LEFTOVERS[leftover])

    async with prepared(database) as connection:
        await connection.execute(_LOOK_AT_IT)
        await append(connection, [event() for _ in range(6)])
        await run_until_idle(database, leaving, batch_events=1, retries=0, on_error="halt")
        await checked(connection)
    assert found == {(0, 0)}, "nothing is there"
    assert len(set(sessions)) < len(sessions), "in sessions that others had before"


async def _enter_scope(_tx: Connection) -> None:
    anyio.CancelScope().__enter__()


async def _enter_two_that_are_due(_tx: Connection) -> None:
    anyio.move_on_after(0).__enter__()
    anyio.CancelScope(shield=True).__enter__()


async def _enter_a_group_and_raise(tx: Connection) -> None:
    await _enter_group(tx)
    raise KeyError


async def _enter_group(_tx: Connection) -> None:
    tasks = anyio.create_task_group()
    await tasks.__aenter__()
    tasks.start_soon(anyio.sleep_forever)


async def _enter_a_scope_that_is_cancelled(_tx: Connection) -> None:
    anyio.CancelScope().__enter__().cancel()
    await anyio.sleep(60)


LEFT_OPEN: dict[str, tuple[Callable[[Connection], Awaitable[None]], str]] = {
    "scope": (_enter_scope, "left a cancel scope or a task group open"),
    "scopes that are due": (_enter_two_that_are_due, "left a cancel scope or a task group open"),
    "task group": (_enter_group, "left a cancel scope or a task group open"),
    "task group, and raises": (_enter_a_group_and_raise, "KeyError"),
    "scope that is cancelled": (_enter_a_scope_that_is_cancelled, "CancelledError"),
}


@pytest.mark.parametrize("batch", EVENT_BY_EVENT_AND_IN_BATCHES)
@pytest.mark.parametrize("what", LEFT_OPEN)
async def test_a_handler_that_leaves_something_open_has_failed(database: str, what: str, batch: bool) -> None:  # noqa: FBT001
    act, says = LEFT_OPEN[what]
    calls = 0

    async def leave(tx: Connection) -> None:
        nonlocal calls
        calls += 1
        await act(tx)

    async with prepared(database) as connection:
        await append(connection, [*[event(f"other-{n}") for n in range(5)], event("k", "Bad"), *[event()] * 3])
        leaving = acting_at_bad_events(leave, batch=batch)
        failed = await failure(database, leaving, retries=1)
        assert re.search(rf"failed at event position 6 in 2 attempts: .*({says})", str(failed))
        assert calls >= 2
        await assert_effects_match_checkpoints(connection)
        await run_until_idle(database, handled)
        await checked(connection)


async def test_after_what_was_left_open_all_goes_on(database: str) -> None:
    calls = 0

    @make_projection("handled")
    async def leaving_once(e: Event, tx: Connection) -> None:
        nonlocal calls
        await record(tx, "handled", e)
        if e.event_type == "Bad":
            calls += 1
            if calls == 1:
                anyio.move_on_after(0.2).__enter__()

    async with prepared(database) as connection:
        await append(connection, [*[event(f"other-{n}") for n in range(5)], event("k", "Bad"), *[event()] * 3])
        await run_until_idle(database, leaving_once)
        await checked(connection)
    assert calls >= 2


def _leave_timeout(delay_s: float) -> None:
    coroutine = asyncio.timeout(delay_s).__aenter__()
    with contextlib.suppress(StopIteration):
        coroutine.send(None)


def _cancel_later(delay_s: float) -> None:
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().call_later(delay_s, task.cancel)


@pytest.mark.parametrize("leave", [_leave_timeout, _cancel_later])
async def test_what_strikes_after_its_call_ends_no_lane(
    database: str, leave: Callable[[float], None], caplog: pytest.LogCaptureFixture
) -> None:
    rng = random.Random(11)
    leaving_at = {position: rng.choice([0.0, rng.uniform(0, 0.05)]) for position in rng.sample(range(1, 61), 12)}

    @make_projection("handled")
    async def leaving(e: Event, tx: Connection) -> None:
        await record(tx, "handled", e)
        if (delay_s := leaving_at.pop(e.global_position, None)) is not None:
            leave(delay_s)

    async with prepared(database) as connection:
        await append(connection, [event(f"k-{n}") for n in range(60)])
        await run_until_idle(database, leaving, batch_events=3, retries=12)
        await checked(connection)
    assert any("has a handler left a time-out open" in line for line in caplog.messages)


@pytest.mark.parametrize("batch", EVENT_BY_EVENT_AND_IN_BATCHES)
async def test_what_strikes_after_each_call_has_failed_in_the_end(
    database: str,
    batch: bool,  # noqa: FBT001
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(setbacks, "SETBACKS_MAX", 3)

    async def one(e: Event, tx: Connection) -> None:
        await record(tx, "handled", e)
        await append(tx, [event(event_type="Echo")])  # before the COMMIT there is another statement to be struck at
        _leave_timeout(0.0)

    async def many(events: Sequence[Event], tx: Connection) -> None:
        await one(events[0], tx)

    async with prepared(database) as connection:
        await append(connection, [event()])
        leaving = make_projection("handled", batch=batch)(many if batch else one)
        failed = await failure(database, leaving, retries=1)
        assert "failed at event position 1 in 2 attempts: cancelled after the handler's calls" in str(failed)
        await assert_effects_match_checkpoints(connection)
        await run_until_idle(database, handled)
        await checked(connection)


async def _rewound_in_a_batch_cut_short(database: str) -> None:
    """Rewind the own projection once, in the third of forty slow calls; all are handled twice up to there."""
    calls: list[int] = []

    @make_projection("handled")
    async def rewinding(e: Event, tx: Connection) -> None:
        calls.append(e.global_position)
        await anyio.sleep(0.02)
        if len(calls) == 3:
            await tx.execute("SELECT reactive_orch.rewind('test', 'handled', 0)")
        await record(tx, "handled", e)

    async with prepared(database) as connection:
        await append(connection, [event() for _ in range(40)])
        await run_until_idle(database, rewinding, handler_timeout_s=1.0, retries=0, on_error="halt")
    first = calls[: calls.index(1, 1)]
    assert 3 <= len(first) < 40, "its batch was cut short"
    assert calls == [*first, *range(1, 41)], "and everything is handled from the start"


async def test_a_rewind_in_a_batch_that_is_cut_short_is_kept(database: str) -> None:
    await _rewound_in_a_batch_cut_short(database)


async def test_a_rewind_that_is_overwritten_is_caught(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planted, "_put", monkeypatch.setattr)
    planted.plant("rewind_overwritten_by_its_own_batch")
    with contextlib.suppress(TimeoutError), pytest.raises((AssertionError, ValueError)):
        await _rewound_in_a_batch_cut_short(database)
