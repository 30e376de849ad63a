"""Calling handlers: what may end in a commit, how long a batch lasts, and what becomes of what a handler does."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import sys
import time
from typing import TYPE_CHECKING

import anyio
import pytest
from opentelemetry import baggage, context

from integration_test.harness.cases import EVENT_BY_EVENT_AND_IN_BATCHES
from integration_test.harness.checkers import assert_effects_match_checkpoints, checked
from integration_test.harness.connections import connected, prepared
from integration_test.harness.findings import found
from integration_test.harness.in_process import acting_at_bad_events, event, failure, run_until_idle, serving
from integration_test.harness.projections import handled, record
from reactive_orch import append
from reactive_orch import projection as make_projection
from reactive_orch.postgres import checkpoints

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from integration_test.harness.cluster import Cluster
    from integration_test.harness.connections import Connection
    from reactive_orch import Event


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
            await run_until_idle(database, blocking, retries=0, on_error="halt", handler_timeout_s=0.3)
        await assert_effects_match_checkpoints(connection)
        await run_until_idle(database, handled)
        await checked(connection)


async def test_a_time_out_between_two_events_commits_nothing_unhandled(database: str) -> None:
    await _timed_out_between_two_events(database)


async def test_a_deadline_that_is_moved_after_its_scope_was_cancelled_is_caught(
    database: str, plant: Callable[[str], None]
) -> None:
    plant("deadline_moved_after_its_scope_was_cancelled")
    with found():
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


class _Textless(Exception):
    def __str__(self) -> str:
        raise RuntimeError


async def _raise_textless(_tx: Connection) -> None:
    raise _Textless


async def _raise_its_own_cause(_tx: Connection) -> None:
    error = LookupError("round and round")
    raise error from error


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
    "raises what has no text": (_raise_textless, r"_Textless: <exception str\(\) failed>"),
    "raises what is its own cause": (_raise_its_own_cause, "LookupError: round and round"),
    "swallows its time-out": (_swallow_its_time_out, "took longer than 1 s"),
    "takes long in a shield": (_take_long_in_a_shield, "took longer than 1 s"),
}


@pytest.mark.parametrize("batch", EVENT_BY_EVENT_AND_IN_BATCHES)
@pytest.mark.parametrize("end", OWN_ENDS)
async def test_a_handler_that_ends_in_an_odd_way_has_failed(database: str, end: str, batch: bool) -> None:  # noqa: FBT001
    act, says = OWN_ENDS[end]
    async with prepared(database) as connection:
        await append(connection, [*[event(f"other-{n}") for n in range(5)], event("k", "Bad"), *[event()] * 3])
        odd = acting_at_bad_events(act, batch=batch)
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
        await assert_effects_match_checkpoints(connection)
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
    with found():
        await _slow_handlers(database)


async def test_a_call_has_its_whole_time_wherever_it_stands_in_a_batch(database: str) -> None:
    @make_projection("handled")
    async def quick_then_slow(e: Event, tx: Connection) -> None:
        await asyncio.sleep(0.9 if e.event_type == "Bad" else 0.03)
        await record(tx, "handled", e)

    async with prepared(database) as connection:
        await append(connection, [event(), event(), event(event_type="Bad"), event()])
        await run_until_idle(database, quick_then_slow, handler_timeout_s=1.0, retries=0, on_error="halt")
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


async def _say(tx: Connection, how: str, statement: str) -> None:
    match how:
        case "execute":
            await tx.execute(statement)
        case "fetch":
            await tx.fetch(statement)
        case "prepare":
            await (await tx.prepare(statement)).fetch()
        case "one string":
            await tx.execute(f"SELECT 1; {statement}")


SPELLINGS = [
    ("savepoint x", "rollback to x"),
    ("SAVEPOINT x", "ROLLBACK TO SAVEPOINT x"),
    ('savepoint "X y"', 'Rollback Work To Savepoint "X y"'),
    ("/* a */ savepoint x", "rollback\nto -- it\nx"),
]


@pytest.mark.parametrize("how", ["execute", "fetch", "prepare", "one string"])
async def test_what_a_savepoint_takes_back_is_not_appended(database: str, how: str) -> None:
    @make_projection("handled")
    async def echoing(e: Event, tx: Connection) -> None:
        await record(tx, "handled", e)
        if e.event_type != "Good":
            return
        await append(tx, [event(e.aggregate_id, "First")])
        for save, roll_back in SPELLINGS:
            await _say(tx, how, save)
            await append(tx, [event(e.aggregate_id, "Ghost")])
            await _say(tx, how, "savepoint inner_one")
            await append(tx, [event(e.aggregate_id, "Ghost")])
            await _say(tx, how, "release inner_one")
            await _say(tx, how, roll_back)
        async with tx.transaction():
            await append(tx, [event(e.aggregate_id, "Second")])
        with contextlib.suppress(KeyError):
            async with tx.transaction():
                await append(tx, [event(e.aggregate_id, "Ghost")])
                raise KeyError
        await append(tx, [event(e.aggregate_id, "Third")])

    async with prepared(database) as connection:
        await append(connection, [event()])
        await run_until_idle(database, echoing)
        types = await connection.fetch("SELECT event_type FROM reactive_orch.events ORDER BY global_position")
        assert [row[0] for row in types] == ["Good", "First", "Second", "Third"]
        await run_until_idle(database, echoing)
        await checked(connection)


async def test_savepoints_taken_for_their_words_are_caught(database: str, plant: Callable[[str], None]) -> None:
    plant("put_off_appends_survive_their_savepoint")
    with found():
        await test_what_a_savepoint_takes_back_is_not_appended(database, "execute")


DIRT = {
    "search_path": "SET search_path = elsewhere, public",
    "time-outs": "SET statement_timeout = '1ms'; SET LOCAL statement_timeout = 0",
    "role": "SET ROLE nobody_much; SET LOCAL search_path = public",
    "session authorization": "SET SESSION AUTHORIZATION nobody_much",
    "read only": "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
    "this transaction read only": "SET TRANSACTION READ ONLY",
    "replica": "SET session_replication_role = replica",
    "setting of its own": "SELECT set_config('shop.tenant', 'a', false)",
    "table": "CREATE TEMP TABLE counted (n integer); INSERT INTO counted VALUES (1)",
    "lock": "SELECT pg_advisory_lock(77)",
    "channel": "LISTEN orders",
    "cursor": "DECLARE all_of_them CURSOR WITH HOLD FOR SELECT 1",
}
_SESSION = """
SELECT current_user::text, session_user::text, current_setting('search_path'), current_setting('statement_timeout'),
       current_setting('transaction_read_only'), current_setting('default_transaction_read_only'),
       current_setting('session_replication_role'), coalesce(current_setting('shop.tenant', true), ''),
       current_setting('idle_in_transaction_session_timeout'), current_setting('application_name'),
       (SELECT count(*) FROM pg_class WHERE relname = 'counted'),
       (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 77 AND pid = pg_backend_pid()),
       (SELECT count(*) FROM pg_listening_channels()), (SELECT count(*) FROM pg_cursors WHERE name = 'all_of_them')
"""


@pytest.mark.parametrize("dirt", DIRT)
async def test_what_a_handler_does_to_its_session_ends_with_the_batch(database: str, dirt: str) -> None:
    sessions: list[tuple[int, tuple[object, ...]]] = []

    @make_projection("handled")
    async def dirty(e: Event, tx: Connection) -> None:
        sessions.append((await tx.fetchval("SELECT pg_backend_pid()"), tuple(await tx.fetchrow(_SESSION) or ())))
        await record(tx, "handled", e)
        await tx.execute(DIRT[dirt])

    async with prepared(database) as connection:
        await connection.execute(_PREPARE_DIRT)
        await append(connection, [event() for _ in range(6)])
        await run_until_idle(database, dirty, batch_events=1)
        await checked(connection)
    assert len({session for _, session in sessions}) == 1, "each batch found the session as the first did"
    assert len({pid for pid, _ in sessions}) < len(sessions), "in sessions that others had before"


_PREPARE_DIRT = """
CREATE SCHEMA IF NOT EXISTS elsewhere;
DO $$ BEGIN CREATE ROLE nobody_much; EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$
"""


KEPT_AFTER_A_FAILURE = {
    "lock": DIRT["lock"],
    "setting of its own": DIRT["setting of its own"],
    "table": DIRT["table"],
    "role": DIRT["role"],
    "prepared": "PREPARE by_name AS SELECT 1",
}


@pytest.mark.parametrize("dirt", KEPT_AFTER_A_FAILURE)
async def test_a_batch_of_several_that_fails_by_code_alone_leaves_its_session_clean(database: str, dirt: str) -> None:
    sessions: list[tuple[int, tuple[object, ...]]] = []

    @make_projection("handled")
    async def dirty(e: Event, tx: Connection) -> None:
        if e.aggregate_id == "b" and len(sessions) == 1:
            msg = "not yet"
            raise RuntimeError(msg)
        left_over = await tx.fetchval("SELECT count(*) FROM pg_prepared_statements WHERE from_sql")
        session = (left_over, *(await tx.fetchrow(_SESSION) or ()))
        sessions.append((await tx.fetchval("SELECT pg_backend_pid()"), session))
        await record(tx, "handled", e)
        await tx.execute(KEPT_AFTER_A_FAILURE[dirt])

    async with prepared(database) as connection:
        await connection.execute(_PREPARE_DIRT)
        await append(connection, [event("a"), event("b")])
        await run_until_idle(database, dirty)
        await checked(connection)
    (failed, _), (following, _), _ = sessions
    assert len({session for _, session in sessions}) == 1, "each batch found the session as the first did"
    assert (failed == following) == (dirt != "prepared"), "a connection that cannot be cleaned is dropped"


async def test_a_codec_that_a_handler_sets_ends_with_its_batch(database: str) -> None:
    seen: list[object] = []

    @make_projection("handled")
    async def decoding(e: Event, tx: Connection) -> None:
        seen.append(await tx.fetchval("SELECT '{}'::jsonb"))
        assert e.metadata == {}
        await tx.set_type_codec("jsonb", schema="pg_catalog", encoder=json.dumps, decoder=json.loads)
        await record(tx, "handled", e)

    async with prepared(database) as connection:
        await append(connection, [event() for _ in range(4)])
        await run_until_idle(database, decoding, batch_events=1)
        await checked(connection)
    assert seen == ["{}"] * 4


async def test_a_type_made_anew_is_known_at_the_next_attempt(database: str) -> None:
    at_it = asyncio.Event()

    @make_projection("handled")
    async def typed(e: Event, tx: Connection) -> None:
        await tx.execute("INSERT INTO moods VALUES ($1)", ["calm"])
        await record(tx, "handled", e)
        at_it.set()

    async with prepared(database) as connection:
        await connection.execute(_MOODS)
        async with serving(database, typed, retries=2):
            await append(connection, [event()])
            async with asyncio.timeout(30):
                await at_it.wait()
            await checked(connection)
            await connection.execute(f"DROP TABLE moods; DROP TYPE mood; {_MOODS}")
            await append(connection, [event()])
            await checked(connection)


_MOODS = "CREATE TYPE mood AS ENUM ('calm', 'wild'); CREATE TABLE moods (mood mood[])"


async def test_a_failed_attempt_is_followed_by_one_on_another_connection(database: str) -> None:
    pids: list[int] = []

    @make_projection("handled")
    async def failing(e: Event, tx: Connection) -> None:
        pids.append(await tx.fetchval("SELECT pg_backend_pid()"))
        await record(tx, "handled", e)
        if len(pids) < 4:
            await tx.execute("SELECT pg_advisory_lock(78)")
            msg = "not yet"
            raise RuntimeError(msg)

    async with prepared(database) as connection:
        await append(connection, [event()])
        await run_until_idle(database, failing, retries=5)
        await checked(connection)
    assert len(set(pids)) == 4


@pytest.mark.parametrize(("failures_max", "again"), [(0, False), (1000, True)])
async def test_a_connection_that_remembers_too_many_failures_goes_with_the_next(
    database: str, monkeypatch: pytest.MonkeyPatch, failures_max: int, *, again: bool
) -> None:
    monkeypatch.setattr(checkpoints, "FAILURES_MAX", failures_max)
    pids: list[int] = []

    @make_projection("handled")
    async def failing(e: Event, tx: Connection) -> None:
        if e.event_type == "Bad":
            pids.append(await tx.fetchval("SELECT pg_backend_pid()"))
            raise LookupError
        await record(tx, "handled", e)

    async with prepared(database) as connection:
        await append(connection, [event(f"k{n}", "Good" if n % 2 else "Bad") for n in range(16)])
        await run_until_idle(database, failing, retries=1, on_error="park")
    assert len(pids) >= 16
    assert (len(set(pids)) < len(pids)) is again


async def test_a_connection_lost_in_a_handler_is_replaced(database: str) -> None:
    calls = 0

    @make_projection("handled")
    async def losing(e: Event, tx: Connection) -> None:
        nonlocal calls
        calls += 1
        await record(tx, "handled", e)
        if calls == 2:
            async with connected(database) as other:
                await other.execute("SELECT pg_terminate_backend($1)", await tx.fetchval("SELECT pg_backend_pid()"))
            await asyncio.sleep(0.1)
            await record(tx, "handled", e)

    async with prepared(database) as connection:
        await append(connection, [event(f"k{n}") for n in range(4)])
        await run_until_idle(database, losing)
        await checked(connection)


async def test_no_handler_is_called_after_one_that_has_lost_the_connection_and_returned(database: str) -> None:
    called: list[int] = []

    @make_projection("handled")
    async def losing(e: Event, tx: Connection) -> None:
        called.append(e.global_position)
        if len(called) == 1:
            tx.terminate()
        else:
            await record(tx, "handled", e)

    async with prepared(database) as connection:
        await append(connection, [event(f"k{n}") for n in range(4)])
        await run_until_idle(database, losing)
        assert called[1] == called[0]
        await checked(connection)


@pytest.mark.parametrize("at", ["a statement", "an await", "a standstill"])
async def test_a_handler_that_outlasts_the_servers_limit_has_failed(database: str, cluster: Cluster, at: str) -> None:
    if int(cluster.version) < 17:
        pytest.skip("there is no transaction_timeout before PostgreSQL 17")

    @make_projection("handled")
    async def outlasting(e: Event, tx: Connection) -> None:
        await record(tx, "handled", e)
        if e.event_type == "Bad":
            match at:
                case "a statement":
                    await tx.execute("SELECT pg_sleep(2)")
                case "an await":
                    await asyncio.sleep(0.8)
                case _:
                    time.sleep(0.8)  # noqa: ASYNC251 - that is the case
            await record(tx, "handled", e)

    async with prepared(database) as connection:
        await append(connection, [*[event(f"k{n}") for n in range(3)], event("k", "Bad"), event()])
        name = await connection.fetchval("SELECT current_database()")
        await connection.execute(f"ALTER DATABASE {name} SET transaction_timeout = '500ms'")
        failed = await failure(database, outlasting, retries=1)
        assert re.search(r"failed at event position 4 in 2 attempts: .*(transaction.timeout)", str(failed))
        await connection.execute(f"ALTER DATABASE {name} RESET transaction_timeout")
        await assert_effects_match_checkpoints(connection)
        await run_until_idle(database, handled)
        await checked(connection)


async def test_a_handler_that_stands_still_until_the_server_ends_its_session_has_failed(database: str) -> None:
    @make_projection("handled")
    async def blocking(e: Event, tx: Connection) -> None:
        if e.event_type == "Bad":
            await _end_backend(database, await tx.fetchval("SELECT pg_backend_pid()"))
            time.sleep(0.4)  # noqa: ASYNC251 - that is the case
        await record(tx, "handled", e)

    async with prepared(database) as connection:
        await append(connection, [event("a"), event("b", "Bad"), event("c")])
        failed = await failure(database, blocking, retries=1, handler_timeout_s=0.3)
        assert re.search(r"failed at event position 2 in 2 attempts: the handler took longer than 0.3 s", str(failed))
        await assert_effects_match_checkpoints(connection)
        await run_until_idle(database, handled)
        await checked(connection)


async def _end_backend(url: str, pid: int) -> None:
    async with connected(url) as connection:
        await connection.execute("SELECT pg_terminate_backend($1)", pid)
