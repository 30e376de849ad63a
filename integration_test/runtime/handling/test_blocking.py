"""Plain functions as handlers: called in threads, in the batch's transaction, cut off when they take too long."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import sys
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import anyio
import asyncpg
import pytest

from integration_test.harness.cases import EVENT_BY_EVENT_AND_IN_BATCHES
from integration_test.harness.checkers import assert_effects_match_checkpoints
from integration_test.harness.connections import prepared
from integration_test.harness.in_process import event, failure, run_until_idle, serving
from integration_test.harness.waiting import wait_until
from reactive_orch import BlockingConnection, Event, Projection, append, dead_letters
from reactive_orch import projection as make_projection
from reactive_orch.model.middleware import Around
from reactive_orch.runtime.handling import threads

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from integration_test.harness.connections import Connection
    from reactive_orch import Handler

    Act = Callable[[BlockingConnection], object]

RECORD = (
    "INSERT INTO public.handled (replica_set, projection, worker, position, partition, key, version) "
    "SELECT 'test', 'handled', 'w', e.global_position, e.partition, e.aggregate_id, e.aggregate_version "
    "FROM reactive_orch.events e WHERE e.global_position = $1"
)
trail: contextvars.ContextVar[str] = contextvars.ContextVar("trail", default="")


@pytest.fixture
async def log(database: str) -> AsyncIterator[Connection]:
    async with prepared(database) as own:
        yield own


def acting(act: Act, *, name: str = "handled", batch: bool = False, **options: Any) -> Projection:
    """Return a blocking projection that records its events and does this at the bad ones."""

    def one(e: Event, tx: BlockingConnection) -> None:
        tx.execute(RECORD, e.global_position)
        if e.event_type == "Bad":
            act(tx)

    def many(events: Sequence[Event], tx: BlockingConnection) -> None:
        for e in events:
            one(e, tx)

    return make_projection(name, batch=batch, blocking=True, **options)(many if batch else one)


async def no_thread_is_left() -> bool:
    return not any(thread.name == "reactive_orch threaded" for thread in threading.enumerate())


def _do_all_that_there_is(tx: BlockingConnection) -> None:
    tx.execute("CREATE TEMPORARY TABLE t (n integer)")
    tx.executemany("INSERT INTO t VALUES ($1)", [(1,), (2,)])
    tx.copy_records_to_table("t", records=[(3,)], columns=["n"])
    assert [row["n"] for row in tx.fetch("SELECT n FROM t ORDER BY n")] == [1, 2, 3]
    with contextlib.suppress(LookupError), tx.transaction():
        tx.execute("DELETE FROM t")
        with pytest.raises(asyncpg.DivisionByZeroError), tx.transaction():
            tx.fetchval("SELECT 1 / 0")
        assert tx.fetchrow("SELECT FROM t") is None
        raise LookupError
    with tx.transaction():
        tx.execute("INSERT INTO t VALUES (4)")
    assert tx.fetchval("SELECT count(*), max(n) FROM t", column=1) == 4
    assert tx.is_in_transaction()


@pytest.mark.each_server
@pytest.mark.parametrize("batch", EVENT_BY_EVENT_AND_IN_BATCHES)
async def test_a_plain_function_writes_with_its_batch(database: str, log: Connection, *, batch: bool) -> None:
    await append(log, [event(f"k{n}", "Bad" if n == 2 else "Good") for n in range(20)])
    await run_until_idle(database, acting(_do_all_that_there_is, batch=batch), retries=0)
    assert await log.fetchval("SELECT count(DISTINCT position) FROM handled") == 20
    assert await log.fetchval("SELECT count(*) FROM reactive_orch.failing_keys") == 0
    await assert_effects_match_checkpoints(log)


async def test_it_runs_beside_the_loop_in_one_thread_and_in_the_context_of_its_batch(
    database: str, log: Connection
) -> None:
    seen: set[int] = set()
    loop, turns = asyncio.get_running_loop(), []

    async def on_the_loop(tx: Connection, word: str) -> str:
        assert threading.get_ident() not in seen
        assert await tx.fetchval("SELECT 1") == 1
        return trail.get() + word

    def act(tx: BlockingConnection) -> None:
        seen.add(threading.get_ident())
        turned = threading.Event()
        loop.call_soon_threadsafe(turned.set)
        turns.append(turned.wait(30))
        assert trail.get() == "outside, "
        trail.set("in the thread, ")
        assert tx.run(on_the_loop, word="back") == "in the thread, back"
        assert append(tx, [event("appended", "Other")]) == []

    await append(log, [event(f"k{n}", "Bad") for n in range(10)])
    trail.set("outside, ")
    await run_until_idle(database, acting(act, name="threaded"), retries=0)
    assert turns == [True] * 10
    assert len(seen) == 1
    gc.collect()
    await wait_until(no_thread_is_left)
    assert await log.fetchval("SELECT count(*) FROM reactive_orch.events WHERE aggregate_id = 'appended'") == 10


def _raise(error: BaseException) -> Act:
    def act(_tx: BlockingConnection) -> None:
        raise error

    return act


def _swallow(tx: BlockingConnection) -> None:
    with contextlib.suppress(asyncpg.PostgresError):
        tx.fetchval("SELECT 1 / 0")


def _wait_for_itself(tx: BlockingConnection) -> None:
    async def ask(_own: Connection) -> None:
        tx.fetchval("SELECT 1")

    tx.run(ask)


def _exit_on_the_loop(tx: BlockingConnection) -> None:
    async def leave(_own: Connection) -> None:
        sys.exit(3)

    tx.run(leave)


FAILURES: dict[str, tuple[Act, str]] = {
    "raises": (_raise(LookupError("why")), "LookupError: why"),
    "exits": (_raise(SystemExit(0)), "SystemExit: 0"),
    "stops": (_raise(StopIteration()), "StopIteration"),
    "cancels": (_raise(asyncio.CancelledError()), "CancelledError"),
    "ends its transaction": (lambda tx: tx.execute("COMMIT"), "may not end the transaction"),
    "ends its transaction by fetching": (lambda tx: tx.fetch("COMMIT"), "may not end the transaction"),
    "swallows an error": (_swallow, "caught a database error and went on"),
    "takes too long in a statement": (lambda tx: tx.fetchval("SELECT pg_sleep(60)"), "took longer than 0.5 s"),
    "waits for itself": (_wait_for_itself, "this would wait for itself"),
    "exits on the loop": (_exit_on_the_loop, "SystemExit: 3"),
}


@pytest.mark.parametrize("what", FAILURES)
async def test_what_fails_is_parked_and_nothing_of_it_is_kept(database: str, log: Connection, what: str) -> None:
    act, why = FAILURES[what]
    await append(log, [event("k1"), event("k2", "Bad"), event("k3")])
    await run_until_idle(database, acting(act, timeout=0.5), retries=0)
    assert [row["key"] for row in await log.fetch("SELECT key FROM handled ORDER BY key")] == ["k1", "k3"]
    (failed,) = await dead_letters.listed(log, "test")
    assert why in f"{failed.failure.error_type}: {failed.failure.message}"


class Hanging:
    """Hangs until it is released, then asks its connection for more."""

    def __init__(self) -> None:
        self.released, self.ended = threading.Event(), threading.Semaphore(0)
        self.began = 0
        self.raised: list[BaseException] = []

    def __call__(self, tx: BlockingConnection) -> None:
        self.began += 1
        try:
            assert self.released.wait(60)
            tx.execute("INSERT INTO cure VALUES (true)")
        except BaseException as error:
            self.raised.append(error)
            raise
        finally:
            self.ended.release()

    async def end(self) -> None:
        self.released.set()
        for _ in range(self.began):
            assert await asyncio.to_thread(self.ended.acquire, timeout=30)


async def test_a_thread_that_hangs_is_cut_off_and_the_others_go_on(database: str, log: Connection) -> None:
    hanging = Hanging()
    await append(log, [event("k1"), event("k2", "Bad"), event("k3")])
    await run_until_idle(database, acting(hanging, timeout=0.2), retries=0)
    (failed,) = await dead_letters.listed(log, "test")
    assert "took longer than 0.2 s" in failed.failure.message
    assert "self.released.wait(60)" in failed.failure.traceback, "where it hangs"
    assert hanging.began in {1, 2}, "in its batch, if there were others in it, and alone"
    await hanging.end()
    assert [type(error) for error in hanging.raised] == [asyncio.CancelledError] * hanging.began
    assert await log.fetchval("SELECT count(*) FROM cure") == 0
    assert [row["key"] for row in await log.fetch("SELECT key FROM handled ORDER BY key")] == ["k1", "k3"]
    await assert_effects_match_checkpoints(log)


async def test_no_more_threads_are_left_behind_than_a_few(
    database: str, log: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threads, "LEFT_MOST", 1)
    hanging = Hanging()
    await append(log, [event(f"k{n}", "Bad") for n in range(3)])
    failed = await failure(database, acting(hanging, timeout=0.1, retries=4))
    assert "2 calls of this handler that were cut off hang in their threads" in str(failed)
    assert hanging.began == 2, "one, and the one that may be left behind"
    await hanging.end()


async def test_a_worker_leaves_without_waiting_for_a_thread(database: str, log: Connection) -> None:
    hanging = Hanging()
    await append(log, [event("k", "Bad")])
    with anyio.CancelScope() as scope:
        async with serving(database, acting(hanging)):

            async def begun() -> bool:
                return hanging.began == 1

            await wait_until(begun)
            scope.cancel()
    await hanging.end()
    assert [type(error) for error in hanging.raised] == [asyncio.CancelledError]
    assert await log.fetchval("SELECT count(*) FROM handled") == 0


async def test_after_its_call_a_connection_is_of_no_use(database: str, log: Connection) -> None:
    kept: list[BlockingConnection] = []
    await append(log, [event("k", "Bad")])
    await run_until_idle(database, acting(kept.append), retries=0)
    with pytest.raises(RuntimeError, match="the call of the handler that this connection was lent to has ended"):
        await asyncio.to_thread(kept[0].execute, "SELECT 1")


async def test_a_middleware_that_calls_it_in_another_loop_fails_the_event(database: str, log: Connection) -> None:
    """Asyncpg's connection would be used from two threads, and the process would crash."""

    def elsewhere(handler: Handler) -> Handler:
        async def call(events: Any, tx: Connection) -> None:
            await asyncio.to_thread(lambda: asyncio.run(handler(events, tx)))  # type: ignore[arg-type]

        return call

    await append(log, [event("k1")])
    one = acting(lambda tx: tx.execute("SELECT 1"))
    await run_until_idle(database, replace(one, around=Around(middleware=(elsewhere,))), retries=0)
    (failed,) = await dead_letters.listed(log, "test")
    assert "in another event loop than its worker's" in failed.failure.message
