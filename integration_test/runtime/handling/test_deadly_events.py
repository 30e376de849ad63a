"""Events that end their process, or its connection: found, set aside and parked, and nobody else is blamed."""

from __future__ import annotations

import asyncio
import contextlib
import re
import signal
from functools import partial
from typing import TYPE_CHECKING

import pytest

from integration_test.harness.cases import thorough
from integration_test.harness.checkers import assert_accounted, checked, owners, wait_accounted, wait_settled
from integration_test.harness.connections import connected, prepared
from integration_test.harness.findings import found
from integration_test.harness.in_process import acting_at_bad_events, event, run_until_idle, serving
from integration_test.harness.load import gate_closed
from integration_test.harness.processes import WorkerProcess
from integration_test.harness.projections import DEADLY, POISON, record, recorder
from integration_test.harness.waiting import wait_until
from reactive_orch import Event, append
from reactive_orch import projection as make_projection
from reactive_orch.model.keys import WantedKeys
from reactive_orch.postgres import dead_letters

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from integration_test.harness.cluster import Cluster
    from integration_test.harness.connections import Connection
    from reactive_orch.model.keys import FailingKey

KEYS = 20
DEATHS_S = 120.0
"""Processes are started one after the other, with pauses of 12 s in all."""


async def fill(connection: Connection, before: int, behind: int) -> None:
    """Append events of many keys, one poison among them, and later events of its key."""
    for number in range(before):
        await append(connection, [event(f"k{number % KEYS}")])
    await append(connection, [event("k7", POISON), event("k7")])
    for number in range(behind):
        await append(connection, [event(f"k{number % KEYS}")])


async def keys_of(connection: Connection) -> list[FailingKey]:
    return await dead_letters.listed(connection, WantedKeys("test"))


@contextlib.asynccontextmanager
async def supervised(url: str, name: str, projection: str, ends: list[int], *options: str) -> AsyncIterator[None]:
    """Run a worker, and start it again whenever it has ended by itself; `ends` are its exit codes."""

    async def keep() -> None:
        while True:
            async with WorkerProcess(url, name, projections=[projection], options=options) as worker:
                ends.append(await worker.wait(timeout_s=DEATHS_S))

    task = asyncio.create_task(keep())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def parked(connection: Connection) -> bool:
    return [key.state for key in await keys_of(connection)] == ["parked"]


@pytest.mark.parametrize(("projection", "deaths_most"), [("deadly", 4), thorough("deadly_in_batches", 7)])
async def test_an_event_that_ends_its_process_is_parked_and_all_others_go_on(
    database: str, projection: str, deaths_most: int
) -> None:
    ends: list[int] = []
    async with prepared(database) as connection, contextlib.AsyncExitStack() as stack:
        await fill(connection, 150, 150)
        for number in range(3):
            await stack.enter_async_context(supervised(database, f"w{number}", projection, ends))
        await wait_until(lambda: parked(connection), DEATHS_S, "the key is parked")
        (key,) = await keys_of(connection)
        await wait_accounted(connection, projection)
        await assert_accounted(connection, projection)
        assert (key.key.aggregate_id, key.failure.error_type, key.attempts) == ("k7", "KilledProcess", 3)
        assert "3 times" in key.failure.message
        assert set(ends) == {DEADLY}
        assert len(ends) <= deaths_most


@pytest.mark.thorough
async def test_a_worker_that_is_started_again_and_again_gets_to_the_end(database: str) -> None:
    """The second start says what it has in hand, the third sets it aside. It is tried twice more, then parked."""
    async with prepared(database) as connection:
        await fill(connection, 20, 20)
        ends: list[int] = []
        handled: list[int] = []
        while 0 not in ends:
            assert len(ends) < 6
            async with WorkerProcess(database, "w", projections=["deadly"], options=["--until-idle"]) as worker:
                ends.append(await worker.wait(timeout_s=DEATHS_S))
            handled.append(await connection.fetchval("SELECT count(*) FROM handled"))
        assert ends == [DEADLY] * 4 + [0]
        assert handled[:2] == [0, 0]
        (key,) = await keys_of(connection)
        assert handled[2:] == [42 - key.events] * 3
        assert (key.state, key.failure.error_type, key.attempts) == ("parked", "KilledProcess", 3)
        await assert_accounted(connection, "deadly")


@pytest.mark.thorough
async def test_a_person_who_retries_it_costs_one_process_and_no_more(database: str) -> None:
    async with prepared(database) as connection:
        await append(connection, [event("k", POISON), event("k")])
        ends: list[int] = []
        async with supervised(database, "w", "deadly", ends):
            await wait_until(lambda: parked(connection), DEATHS_S, "the key is parked")
            died = len(ends)
            (key,) = await keys_of(connection)
            await dead_letters.request(connection, "test", [key], "retry", "test")

            async def again() -> bool:
                return await parked(connection) and (await keys_of(connection))[0].attempts == key.attempts + 1

            await wait_until(again, DEATHS_S, "it is parked again")
            assert len(ends) == died + 1
            await connection.execute("INSERT INTO public.cure VALUES (true)")
            await dead_letters.request(connection, "test", [key], "retry", "test")
            await checked(connection, "deadly")


async def test_a_worker_that_is_killed_leaves_no_key_behind(database: str) -> None:
    async with prepared(database) as connection:
        for round_ in range(2):
            async with WorkerProcess(database, "killed", projections=["handled_slowly"]) as killed:
                await killed.ready()
                for number in range(40):
                    await append(connection, [event(f"k{number % KEYS}")])
                await wait_until(partial(_more_than, connection, 30 * round_), what="some are handled")
        async with WorkerProcess(database, "last", projections=["handled_slowly"]) as last:
            await last.said("whose worker was lost without a word")
            await checked(connection, "handled_slowly")
            assert not await keys_of(connection)
            await wait_until(lambda: _nothing_is_suspect(connection), what="no partition is suspect any more")


async def test_what_a_lost_worker_had_not_given_yet_is_suspect_too(database: str) -> None:
    """All 64 partitions are in its hand, half of them are another one's by then. It takes those, and later the rest."""
    async with (
        prepared(database) as connection,
        WorkerProcess(database, "giver", projections=["handled_at_gate"]) as giver,
        contextlib.AsyncExitStack() as stack,
    ):
        keys = await a_key_of_each_partition(connection)
        async with gate_closed(database) as at_gate:
            await giver.ready()
            await append(connection, [event(key) for key in keys])
            await wait_until(at_gate, what="all are in hand")
            taker = WorkerProcess(database, "taker", projections=["handled_at_gate"])
            await stack.enter_async_context(taker)
            await wait_until(partial(_have_owners, connection, 2), what="half of them are to be given")
            giver.send(signal.SIGKILL)
            await wait_until(partial(_have_owners, connection, 1), what="it is removed")
        await wait_accounted(connection, "handled_at_gate")
        took = re.findall(r"took (\d+) partitions whose worker was lost", taker.tail())
        assert sum(map(int, took)) == 64


async def a_key_of_each_partition(connection: Connection) -> list[str]:
    """Return 64 keys, none of which shares its partition. The log is empty afterwards."""
    await append(connection, [event(f"k{number}") for number in range(1000)])
    rows = await connection.fetch("SELECT DISTINCT ON (partition) aggregate_id FROM reactive_orch.events")
    await connection.execute("DELETE FROM reactive_orch.events")
    assert len(rows) == 64
    return [row["aggregate_id"] for row in rows]


async def _have_owners(connection: Connection, count: int) -> bool:
    return len(set(await owners(connection, "handled_at_gate"))) == count


async def _more_than(connection: Connection, events: int) -> bool:
    return bool(await connection.fetchval("SELECT count(*) > $1 FROM handled", events))


async def _nothing_is_suspect(connection: Connection) -> bool:
    return not await connection.fetchval(
        "SELECT (SELECT count(*) FROM reactive_orch.suspicions) + (SELECT count(*) FROM reactive_orch.markers)"
    )


async def suspect(connection: Connection, *markers: tuple[str, int, int]) -> None:
    """Make all partitions of `handled` suspect; a marker: whose it is, the position, and how many events."""
    await connection.execute(
        "INSERT INTO reactive_orch.suspicions (replica_set, projection, log, partition) "
        "SELECT 'test', 'handled', 'events', n FROM generate_series(0, 63) AS n"
    )
    await connection.executemany(
        "INSERT INTO reactive_orch.markers VALUES ('test', 'handled', 'events', $1, 0, "
        "ARRAY(SELECT generate_series(0, 63)::smallint), $2, $3, now())",
        markers,
    )


async def test_an_innocent_event_is_tried_again_alone_and_its_key_goes_on(database: str) -> None:
    async with prepared(database) as connection:
        await fill(connection, 30, 30)
        await suspect(connection, ("lost", 11, 1))
        await run_until_idle(database, recorder("handled"))
        await checked(connection)
        order = [row["position"] for row in await connection.fetch("SELECT position FROM handled ORDER BY id")]
        key = "SELECT global_position FROM reactive_orch.events WHERE global_position >= 11 AND aggregate_id = 'k10'"
        late = [row["global_position"] for row in await connection.fetch(f"{key} ORDER BY 1")]
        assert [position for position in order if position in late] == late, "the key's order is kept"
        assert order.index(late[0]) > order.index(late[0] + 1), "the event waited, and the others went on"
        blamed = await connection.fetchval("SELECT last_value FROM reactive_orch.failing_keys_id_seq")
        assert blamed == 1, "nobody else was blamed"
        assert await _nothing_is_suspect(connection)


async def test_what_a_living_worker_has_in_hand_blames_nobody(database: str) -> None:
    async with prepared(database) as connection:
        async with serving(database, recorder("handled")) as worker:
            await wait_settled(connection, members=1)
            assert worker.snapshot is not None
            async with serving(database, recorder("handled")):
                await wait_settled(connection, members=2)
                await suspect(connection, (worker.snapshot.members[0].name, 11, 1))
            await wait_settled(connection, members=1)
            await fill(connection, 30, 30)
            await checked(connection)
        assert not await connection.fetchval(
            "SELECT last_value > 1 OR is_called FROM reactive_orch.failing_keys_id_seq"
        )


@pytest.mark.parametrize("ends", ["in time", "cut off"])
async def test_a_clean_stop_takes_back_what_it_has_in_hand(database: str, ends: str) -> None:
    in_hand, go_on = asyncio.Event(), asyncio.Event()

    @make_projection("handled")
    async def waiting(e: Event, tx: Connection) -> None:
        await record(tx, "handled", e)
        in_hand.set()
        await go_on.wait()

    async with prepared(database) as connection:
        await fill(connection, 5, 5)
        await suspect(connection)
        async with serving(database, waiting, grace_s=0.2 if ends == "cut off" else 30.0):
            await in_hand.wait()
            assert await connection.fetchval("SELECT events FROM reactive_orch.markers") == 1
            if ends == "in time":
                go_on.set()
        assert not await connection.fetchval("SELECT count(*) FROM reactive_orch.markers")


async def test_batches_whose_owner_was_not_lost_put_no_marker(database: str) -> None:
    async with prepared(database) as connection:
        async with serving(database, recorder("handled")), serving(database, recorder("handled")):
            await wait_settled(connection, members=2)
            await fill(connection, 30, 30)
            await checked(connection)
        assert not await connection.fetchval(
            "SELECT sum(n_tup_ins) FROM pg_stat_user_tables WHERE relname IN ('markers', 'suspicions')"
        )


@pytest.mark.parametrize(
    ("batch", "swallows"),
    [(False, False), (True, False), (False, True), pytest.param(True, True, marks=pytest.mark.thorough)],
)
async def test_an_event_that_ends_its_connection_is_parked(database: str, *, batch: bool, swallows: bool) -> None:
    async def ending(tx: Connection) -> None:
        async with connected(database) as other:
            await other.execute("SELECT pg_terminate_backend($1)", await tx.fetchval("SELECT pg_backend_pid()"))
        with contextlib.suppress(*[Exception] * swallows):
            await tx.execute("SELECT 1")

    async with prepared(database) as connection:
        await append(connection, [event(f"k{n % 5}", "Bad" if n == 12 else "Good") for n in range(40)])
        await run_until_idle(database, acting_at_bad_events(ending, batch=batch))
        (key,) = await keys_of(connection)
        assert (key.state, key.failure.error_type, key.first_position) == ("parked", "KilledConnection", 13)
        await wait_accounted(connection)
        await assert_accounted(connection)


async def test_a_call_of_asyncpgs_that_breaks_its_connection_and_is_swallowed_is_parked(database: str) -> None:
    async def breaking(tx: Connection) -> None:
        with contextlib.suppress(TypeError):
            await tx.execute(5)  # type: ignore[arg-type]

    async with prepared(database) as connection:
        await append(connection, [event(f"k{n % 5}", "Bad" if n == 12 else "Good") for n in range(40)])
        await run_until_idle(database, acting_at_bad_events(breaking, batch=False))
        (key,) = await keys_of(connection)
        assert (key.state, key.first_position) == ("parked", 13)
        await wait_accounted(connection)
        await assert_accounted(connection)


async def test_a_server_that_is_started_anew_blames_no_event(database: str, cluster: Cluster) -> None:
    calls = 0

    @make_projection("handled")
    async def during_restarts(e: Event, tx: Connection) -> None:
        nonlocal calls
        calls += 1
        if calls <= 4:
            await asyncio.to_thread(cluster.restart, "immediate")
        await record(tx, "handled", e)

    async with prepared(database) as connection:
        await append(connection, [event()])
    async with asyncio.timeout(60):
        await run_until_idle(database, during_restarts, retries=0)
    async with connected(database) as connection:
        await checked(connection)
        assert calls == 5


async def test_a_marker_that_blames_the_whole_batch_is_caught(database: str, plant: Callable[[str], None]) -> None:
    plant("marker_blames_the_whole_batch")
    with pytest.raises((AssertionError, TimeoutError)):
        await test_an_innocent_event_is_tried_again_alone_and_its_key_goes_on(database)


async def test_a_marker_that_is_not_taken_back_is_caught(database: str, plant: Callable[[str], None]) -> None:
    plant("marker_not_taken_back")
    with found():
        await test_a_clean_stop_takes_back_what_it_has_in_hand(database, "cut off")
