"""Middleware: in which order it runs, what it may do, and that nothing of it leads to a commit of half a batch."""

from __future__ import annotations

import asyncio
import contextlib
import time
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, NamedTuple

import anyio
import pytest

from integration_test.harness.checkers import assert_effects_match_checkpoints, checked
from integration_test.harness.connections import prepared
from integration_test.harness.in_process import event, run_until_idle
from integration_test.harness.projections import record
from reactive_orch import Config, ConfigError, Node, Worker, append, dead_letters, projection
from reactive_orch.model.middleware import subject

if TYPE_CHECKING:
    from collections.abc import Sequence

    from integration_test.harness.connections import Connection
    from reactive_orch import Event
    from reactive_orch.model import Handler, Middleware

EVENTS = 6


class Outcome(NamedTuple):
    handled: list[int]
    failed: dict[int, str]
    """Position → what is said of it."""
    passed: int
    """Partitions that have moved."""


async def _run(url: str, middleware: Sequence[Middleware] = (), around_batches: Sequence[Middleware] = ()) -> Outcome:
    """Handle six events, of which the fourth fails, with this around the handler."""

    @projection("handled", middleware=middleware, batch_middleware=around_batches)
    async def handled(e: Event, tx: Connection) -> None:
        await record(tx, "handled", e)
        if e.event_type == "Bad":
            msg = "a bad one"
            raise LookupError(msg)

    async with prepared(url) as connection:
        await append(connection, [event(f"k{n}", "Bad" if n == 3 else "Good") for n in range(EVENTS)])
        await run_until_idle(url, handled, retries=0)
        handled_at = await connection.fetch("SELECT position FROM public.handled ORDER BY 1")
        moved = await connection.fetchval("SELECT count(*) FROM reactive_orch.checkpoints WHERE position >= 1")
        return Outcome([row[0] for row in handled_at], await _failed(connection), moved)


async def _failed(connection: Connection) -> dict[int, str]:
    return {key.first_position: key.failure.message for key in await dead_letters.listed(connection, "test")}


def noting(told: list[str], name: str) -> Middleware:
    def middleware(handle: Handler) -> Handler:
        async def noted(events: Any, tx: Any) -> None:
            told.append(f"+{name}")
            await handle(events, tx)
            told.append(f"-{name}")

        return noted

    return middleware


async def test_the_workers_are_outside_the_projections(database: str) -> None:
    told: list[str] = []
    tenant: ContextVar[str] = ContextVar("tenant")

    def set_tenant(handle: Handler) -> Handler:
        async def with_tenant(e: Event, tx: Any) -> None:
            token = tenant.set(e.aggregate_id)
            try:
                await handle(e, tx)
            finally:
                tenant.reset(token)

        return with_tenant

    @projection("p", middleware=[noting(told, "c"), set_tenant], batch_middleware=[noting(told, "b")])
    async def handled(_event: Event, _tx: Connection) -> None:
        told.append(f"{tenant.get()} of {subject.get().projection}")

    async with prepared(database) as connection:
        await append(connection, [event("k1"), event("k2")])
    async with Node(Config(database_url=database)) as node:
        outer, around_batches = [noting(told, "3"), noting(told, "4")], [noting(told, "1")]
        worker = Worker(node, "test", [handled], until_idle=True, middleware=outer, batch_middleware=around_batches)
        await worker.run()
    each = [["+3", "+4", "+c", f"{key} of p", "-c", "-4", "-3"] for key in ("k1", "k2")]
    assert told == ["+1", "+b", *each[0], *each[1], "-b", "-1"]
    assert subject.get(None) is None


async def test_of_batch_projections_both_are_around_the_call(database: str) -> None:
    told: list[str] = []

    @projection("p", batch=True, middleware=[noting(told, "2")], batch_middleware=[noting(told, "1")])
    async def handled(events: Sequence[Event], _tx: Connection) -> None:
        told.append(str(len(events)))

    async with prepared(database) as connection:
        await append(connection, [event("k1"), event("k2")])
    await run_until_idle(database, handled)
    assert told == ["+1", "+2", "2", "-2", "-1"]


def _swallowing(handle: Handler) -> Handler:
    async def swallowing(events: Any, tx: Any) -> None:
        with contextlib.suppress(Exception):
            await handle(events, tx)

    return swallowing


@pytest.mark.parametrize("around", ["handlers", "batches"])
async def test_an_error_that_is_swallowed_is_a_failure_all_the_same(database: str, around: str) -> None:
    both = ([_swallowing], []) if around == "handlers" else ([], [_swallowing])
    assert (await _run(database, *both))[:2] == ([1, 2, 3, 5, 6], {4: "a bad one"})


async def test_what_is_passed_over_is_handled(database: str) -> None:
    def only_good(handle: Handler) -> Handler:
        async def passing(e: Event, tx: Any) -> None:
            if e.event_type == "Good":
                await handle(e, tx)

        return passing

    assert (await _run(database, [only_good]))[:2] == ([1, 2, 3, 5, 6], {})


async def test_a_batch_is_passed_over_as_a_whole(database: str) -> None:
    def none(_handle: Handler) -> Handler:
        async def passing(_events: Any, _tx: Any) -> None: ...

        return passing

    handled, failed, passed = await _run(database, [], [none])
    assert (handled, failed) == ([], {})
    assert passed


async def test_a_call_may_be_made_again_in_a_savepoint(database: str) -> None:
    calls: list[int] = []

    def once_more(handle: Handler) -> Handler:
        async def retrying(e: Event, tx: Connection) -> None:
            try:
                async with tx.transaction():
                    await handle(e, tx)
            except LookupError:
                calls.append(e.global_position)
                await handle(e._replace(event_type="Good"), tx)

        return retrying

    assert (await _run(database, [once_more]))[:2] == ([1, 2, 3, 4, 5, 6], {})
    assert calls == [4]


async def test_one_that_fails_around_a_batch_is_narrowed_down(database: str) -> None:
    """It does not say which event it fails at: the batch is halved, as that of a batch handler is."""

    def no_bad_ones(handle: Handler) -> Handler:
        async def refusing(events: Sequence[Event], tx: Any) -> None:
            await handle(events, tx)
            if any(e.aggregate_id == "k4" for e in events):
                raise ZeroDivisionError

        return refusing

    outcome = await _run(database, [], [no_bad_ones])
    assert (outcome.handled, sorted(outcome.failed)) == ([1, 2, 3, 6], [4, 5])


async def test_a_time_out_of_its_own_that_is_hidden_commits_nothing(database: str) -> None:
    began: list[int] = []

    def hurried(handle: Handler) -> Handler:
        async def moving_on(events: Any, tx: Any) -> None:
            with anyio.move_on_after(0.05):
                began.append(1)
                await handle(events, tx)

        return moving_on

    @projection("handled", batch_middleware=[hurried])
    async def handled(e: Event, tx: Connection) -> None:
        await record(tx, "handled", e)
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(0 if e.aggregate_id != "k3" else 60)

    async with prepared(database) as connection:
        await append(connection, [event(f"k{n}") for n in range(EVENTS)])
        await run_until_idle(database, handled, retries=0)
        await assert_effects_match_checkpoints(connection)
        assert (await _failed(connection)).keys() == {4}


async def test_one_that_does_not_wait_for_the_handler_commits_nothing(database: str) -> None:
    tasks: list[asyncio.Task[None]] = []

    def leaving(handle: Handler) -> Handler:
        async def begin(e: Event, tx: Any) -> None:
            coroutine: Any = handle(e, tx)
            tasks.append(asyncio.create_task(coroutine))
            await asyncio.sleep(0)

        return begin

    @projection("handled", middleware=[leaving])
    async def handled(_event: Event, _tx: Connection) -> None:
        await asyncio.sleep(0.01)

    async with prepared(database) as connection:
        await append(connection, [event("k1")])
        await run_until_idle(database, handled, retries=0)
        assert "await it" in (await _failed(connection))[1]
    await asyncio.gather(*tasks, return_exceptions=True)


@pytest.mark.parametrize("around", ["handlers", "batches"])
async def test_a_call_that_nobody_awaits_is_a_failure(database: str, around: str) -> None:
    """As where `await` is missing, and where a task has not begun it: nothing is passed over by a slip."""

    def forgetting(handle: Handler) -> Handler:
        async def forgot(events: Any, tx: Any) -> None:
            coroutine: Any = handle(events, tx)
            coroutine.close()  # or Python warns

        return forgot

    both = ([forgetting], []) if around == "handlers" else ([], [forgetting])
    handled, failed, _ = await _run(database, *both)
    assert (handled, len(failed)) == ([], EVENTS)
    assert "await it" in failed[1]


async def test_a_batch_that_ends_early_commits_what_it_has(database: str) -> None:
    sizes: list[int] = []

    def counting(handle: Handler) -> Handler:
        async def counted(events: Sequence[Event], tx: Any) -> None:
            sizes.append(len(events))
            await handle(events, tx)

        return counted

    @projection("handled", timeout=0.5, batch_middleware=[counting])
    async def slow(e: Event, tx: Connection) -> None:
        time.sleep(0.03)  # noqa: ASYNC251 - longer than half of what a batch may take, however slow the machine
        await record(tx, "handled", e)

    async with prepared(database) as connection:
        await append(connection, [event() for _ in range(EVENTS)])
        await run_until_idle(database, slow)
        await checked(connection)
    assert sizes[0] == EVENTS
    assert len(sizes) > 1


async def test_others_than_the_events_of_the_batch_are_refused(database: str) -> None:
    def halving(handle: Handler) -> Handler:
        async def halved(events: Sequence[Event], tx: Any) -> None:
            await handle(events[: len(events) // 2], tx)

        return halved

    outcome = await _run(database, [], [halving])
    assert len(outcome.failed) == EVENTS
    assert "hands on the very events" in outcome.failed[1]


async def test_another_connection_object_reaches_the_handler(database: str) -> None:
    """As a session of SQLAlchemy does, one for the whole batch."""
    got: list[Any] = []

    def wrapping(handle: Handler) -> Handler:
        async def wrapped(events: Any, tx: Any) -> None:
            await handle(events, {"session of": tx})

        return wrapped

    @projection("handled", batch_middleware=[wrapping])
    async def handled(e: Event, session: Any) -> None:
        got.append(session)
        await record(session["session of"], "handled", e)

    async with prepared(database) as connection:
        await append(connection, [event("k1"), event("k2")])
        await run_until_idle(database, handled)
        await checked(connection)
    assert got[0] is got[1]


async def test_one_that_returns_no_handler_is_said_before_anything_is_handled(database: str) -> None:
    def forgetful(handle: Handler) -> Any:
        async def _never(events: Any, tx: Any) -> None:
            await handle(events, tx)

    @projection("p", middleware=[forgetful])
    async def handled(_event: Event, _tx: Connection) -> None: ...

    async with Node(Config(database_url=database)) as node:
        with pytest.raises(ConfigError, match=r"middleware .*forgetful must return an async function .*, not None"):
            await Worker(node, "test", [handled]).run()
