"""What connections a process holds: few while it idles, never more than it may; and none is missed that was closed."""

from __future__ import annotations

from collections import Counter, defaultdict
from types import SimpleNamespace
from typing import TYPE_CHECKING

import anyio
import pytest

from integration_test.harness.checkers import assert_each_once, wait_handled
from integration_test.harness.connections import prepared
from integration_test.harness.health import running
from integration_test.harness.in_process import pools
from integration_test.harness.load import append_events
from integration_test.harness.projections import record, recorder
from integration_test.harness.proxy import Proxy
from integration_test.harness.waiting import wait_until
from reactive_orch import Config, Event, Node, Worker, projection
from reactive_orch.errors import Exhausted, Unavailable
from reactive_orch.postgres import database as databases
from reactive_orch.postgres import pool as pooling
from reactive_orch.runtime import node as noding
from reactive_orch.runtime.handling import lane

if TYPE_CHECKING:
    from integration_test.harness.connections import Connection
    from reactive_orch import Projection

NAMES = [f"handled_{n}" for n in range(4)]
ALONE = {"membership": 1, "tail": 1, "work": 1}
WATCHING = {"membership": 1, "tail": 1, "watch": 1}


@pytest.fixture
def soon_unused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Close after a moment; but one that is needed every second, as for a look now and then, would stay."""
    monkeypatch.setattr(databases, "UNUSED_S", 2.0)
    monkeypatch.setattr(noding, "PROGRESS_LOOK_S", 0.1)
    monkeypatch.setattr(lane, "SAVE_EVERY_S", 0.2)


async def held(db: Connection) -> list[dict[str, int]]:
    """Return how many connections of each kind each process has."""
    processes: dict[str, dict[str, int]] = defaultdict(dict)
    for row in await db.fetch(_HELD):
        processes[row["process"]][row["kind"]] = row["number"]
    return list(processes.values())


_HELD = """
SELECT split_part(a.application_name, ':', 2) AS kind, count(*) AS number,
       regexp_replace(a.application_name, '^reactive_orch:[a-z]*:', '') AS process
FROM pg_stat_activity a
WHERE a.datname = current_database() AND a.application_name LIKE 'reactive_orch:%' GROUP BY 1, 3 ORDER BY 3, 1
"""


async def all_handle(db: Connection, events: int) -> None:
    await append_events(db, events)
    for name in NAMES:
        await wait_handled(db, name)


@pytest.mark.usefixtures("soon_unused")
async def test_after_a_burst_few_are_left_and_the_others_come_back(database: str) -> None:
    async with prepared(database) as db, running(database, *map(recorder, NAMES)) as (node, _):

        async def idles() -> bool:
            return await held(db) == [ALONE]

        for _ in range(2):
            await all_handle(db, 400)
            [busy] = await held(db)
            assert sum(busy.values()) > 3
            await wait_until(idles, what="it has three connections")
        assert node.database.incarnation == 0
        for name in NAMES:
            await assert_each_once(db, name)


@pytest.mark.usefixtures("soon_unused")
async def test_workers_that_watch_each_other_have_three_each(database: str) -> None:
    """Also where workers are made before their node is entered, as the command line does."""
    nodes = [Node(Config(database_url=database, heartbeat_s=0.2, stale_after_s=2)) for _ in range(2)]
    workers = [Worker(node, "test", [recorder(name) for name in NAMES]) for node in nodes]
    async with prepared(database) as db, nodes[0] as one, nodes[1] as other, anyio.create_task_group() as tasks:
        for worker in workers:
            tasks.start_soon(worker.run)

        async def idle() -> bool:
            return await held(db) == [WATCHING, WATCHING]

        async def nobody_watches() -> bool:
            return not any("watch" in kinds for kinds in await held(db))

        await all_handle(db, 400)
        await wait_until(idle, what="each has three connections")
        incarnations = one.database.incarnation, other.database.incarnation
        await all_handle(db, 400)
        await wait_until(idle, what="each has three connections again")
        workers[1].stop()
        await wait_until(nobody_watches, what="the one that is left watches nobody")
        assert (one.database.incarnation, other.database.incarnation) == incarnations
        workers[0].stop()


async def test_load_opens_no_more_than_it_may(database: str) -> None:
    most: Counter[str] = Counter()
    together, go = [0], anyio.Event()

    def slow(name: str) -> Projection:
        @projection(name, concurrency=3)
        async def slowly(event: Event, tx: Connection) -> None:
            [mine] = await held(tx)
            most.update({kind: max(number - most[kind], 0) for kind, number in mine.items()})
            together.append(sum(mine.values()))
            await go.wait()
            await record(tx, name, event)

        return slowly

    async with prepared(database) as db, running(database, *map(slow, NAMES), connections_max=8) as (node, _):

        async def all_busy() -> bool:
            return node.database.pools["work"].used == node.config.work_connections

        await append_events(db, 100)
        await wait_until(all_busy, what="all connections for batches are in use")
        go.set()
        for name in NAMES:
            await wait_handled(db, name)
    assert most["work"] == 3
    assert most["coordination"] <= 2
    assert max(together) <= 8


async def test_who_comes_in_time_finds_the_same_connection(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = [0.0]
    monkeypatch.setattr(pooling, "time", SimpleNamespace(monotonic=lambda: now_s[0]))

    async def backend() -> int:
        async with ours.processing() as connection:
            return int(await connection.fetchval("SELECT pg_backend_pid()"))

    def passes(seconds: float, keep: int) -> None:
        now_s[0] += seconds
        ours.close_unused(lambda _: keep)

    async with pools(database) as ours:
        first = await backend()
        for _ in range(3):
            passes(databases.UNUSED_S - 1, keep=0)
            assert await backend() == first
        passes(databases.UNUSED_S + 1, keep=1)
        assert await backend() == first
        passes(databases.UNUSED_S + 1, keep=0)
        assert await backend() != first
        assert ours.incarnation == 0


async def test_who_comes_while_one_is_opened_takes_what_is_there_first(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They have just woken and need a connection for a moment: a few of them are enough for all."""
    monkeypatch.setattr(pooling, "PATIENCE_S", 30.0)
    backends: set[int] = set()

    async def borrow() -> None:
        async with ours.processing() as connection:
            backends.add(await connection.fetchval("SELECT pg_backend_pid()"))

    async with pools(database) as ours, anyio.create_task_group() as tasks:
        for _ in range(4):
            tasks.start_soon(borrow)
    assert len(backends) < 4


async def test_one_that_the_network_has_swallowed_is_ended_when_it_is_given_back(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pooling, "CLEANUP_TIMEOUT_S", 0.1)
    async with Proxy(database) as proxy, pools(proxy.url()) as ours:
        pool = ours.pools["work"]
        with anyio.CancelScope() as scope:
            async with ours.processing() as connection:
                proxy.swallow()
                scope.cancel()
                await connection.execute("SELECT")
        assert (pool.used, pool.idle) == (0, 0)
        proxy.flow()
        async with ours.processing() as another:
            assert await another.fetchval("SELECT 1") == 1


async def test_a_connection_that_rests_is_lent_for_a_look(database: str) -> None:
    async def fails() -> None:
        async with ours.resting.rests(tail), ours.looking():
            raise Unavailable

    async with pools(database) as ours:
        tail = await ours.connect("tail")
        async with ours.resting.rests(tail), ours.looking() as lent:
            assert lent is tail
            async with ours.looking() as another:  # one at a time
                assert another is not tail
        async with ours.looking() as pooled:
            assert pooled is not tail
        with pytest.raises(Unavailable):
            await fails()
        assert tail.is_closed()
        assert ours.incarnation == 1


async def test_a_statement_on_a_lent_connection_ends_although_its_borrower_is_cancelled(database: str) -> None:
    async with pools(database) as ours:
        tail = await ours.connect("tail")
        async with ours.resting.rests(tail):
            with anyio.CancelScope() as borrower:
                async with ours.looking() as lent:
                    borrower.cancel()
                    done = await lent.fetchval("SELECT 'done' FROM pg_sleep(0.05)")
        assert done == "done"
        assert await tail.fetchval("SELECT 1") == 1
        ours.put_away(tail)


async def test_a_lent_connection_stays_when_the_server_lacks_something(database: str) -> None:
    async with pools(database) as ours:
        tail = await ours.connect("tail")
        async with ours.resting.rests(tail):
            with pytest.raises(Exhausted):
                async with ours.looking():
                    raise Exhausted
        assert not tail.is_closed()
        ours.put_away(tail)
