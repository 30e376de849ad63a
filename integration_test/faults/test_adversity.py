"""What goes wrong in the world: odd writers, rivals, handlers that misbehave, a database that stops, lies or fills up.

Every test ends with the same question: was each event handled exactly once and in order per key? Workers are processes
where the fault comes from outside; where it sits in a handler or in a rival, they run inside the test.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
from collections import Counter
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import anyio
import asyncpg
import pytest

from integration_test.harness.cases import EVENT_BY_EVENT_AND_IN_BATCHES, thorough
from integration_test.harness.checkers import (
    assert_effects_match_checkpoints,
    checked,
    handled_by,
    wait_all_handle,
    wait_handled,
    wait_settled,
)
from integration_test.harness.command_line import CONFIG, run
from integration_test.harness.connections import connected, prepared
from integration_test.harness.in_process import acting_at_bad_events, event, failure, run_until_idle, serving
from integration_test.harness.load import Load, append_events
from integration_test.harness.processes import WorkerProcess
from integration_test.harness.projections import handled, record, recorder
from integration_test.harness.waiting import wait_until
from reactive_orch import Config, Expected, NewEvent, Node, Projection, Superseded, Worker, append
from reactive_orch import projection as make_projection
from reactive_orch.model import OWN_LOG, Checkpoint, Subscription, Swap
from reactive_orch.postgres import checkpoints, windows
from reactive_orch.postgres.database import Database
from reactive_orch.runtime.handling.runner import Runner
from reactive_orch.runtime.reading.window_cache import caches_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from integration_test.harness.cluster import Cluster, StopMode
    from integration_test.harness.connections import Connection
    from reactive_orch import Event

PARTITIONS = 64
QUICK = ("--heartbeat", "0.3", "--stale-after", "5")


async def plain_insert(connection: Connection, key: str, version: int) -> int:
    """Append as any program may; return the position drawn."""
    return int(await connection.fetchval(_PLAIN_INSERT, key, version))


_PLAIN_INSERT = """
INSERT INTO reactive_orch.events (aggregate_type, aggregate_id, aggregate_version, event_type)
VALUES ('Plain', $1, $2, 'Written') RETURNING global_position
"""


class OddWriter:
    """A writer that does all that the protocol must bear: waits, gives up, half gives up, prepares and forgets."""

    def __init__(self, connection: Connection, number: int, *, two_phase: bool) -> None:
        self._connection = connection
        self._name = f"writer-{number}"
        self._random = random.Random(number)
        self._versions = [0, 0, 0]
        self._two_phase = two_phase
        self.left_prepared: list[str] = []

    async def write(self, transactions: int) -> None:
        kinds = [self._commit, self._roll_back, self._roll_back_to_savepoint]
        for _ in range(transactions):
            if self._two_phase and self._random.random() < 0.25:
                await self._prepare()
            else:
                await self._random.choice(kinds)()

    async def _insert(self, key: int, versions: list[int]) -> None:
        for _ in range(self._random.randint(1, 3)):
            versions[key] += 1
            await plain_insert(self._connection, f"{self._name}-{key}", versions[key])
        await asyncio.sleep(self._random.choice((0, 0, 0.001, 0.005, 0.03)))

    async def _commit(self) -> None:
        async with self._connection.transaction():
            for key in range(3):
                await self._insert(key, self._versions)

    async def _roll_back(self) -> None:
        transaction = self._connection.transaction()
        await transaction.start()
        await self._insert(self._random.randrange(3), list(self._versions))
        await transaction.rollback()

    async def _roll_back_to_savepoint(self) -> None:
        async with self._connection.transaction():
            await self._insert(0, self._versions)
            await self._connection.execute("SAVEPOINT half_way")
            await self._insert(1, list(self._versions))
            await self._connection.execute("ROLLBACK TO SAVEPOINT half_way")
            await self._insert(2, self._versions)

    async def _prepare(self) -> None:
        name = f"{self._name}-{uuid4()}"
        await self._connection.execute("BEGIN")
        for version in (1, 2):
            await plain_insert(self._connection, name, version)
        await self._connection.execute(f"PREPARE TRANSACTION '{name}'")
        if self._random.random() < 0.3:
            self.left_prepared.append(name)
        else:
            await asyncio.sleep(self._random.choice((0, 0.001, 0.02)))
            await self._connection.execute(f"{self._random.choice(('COMMIT', 'ROLLBACK'))} PREPARED '{name}'")


@pytest.mark.parametrize("two_phase", [False, True], ids=["in one phase", "two-phase commit"])
@pytest.mark.each_server
async def test_writers_that_wait_give_up_and_prepare(database: str, two_phase: bool) -> None:  # noqa: FBT001 - a case
    async with contextlib.AsyncExitStack() as stack:
        connection = await stack.enter_async_context(prepared(database))
        stack.push_async_callback(_end_prepared, connection)
        if two_phase:
            # A transaction that has rung the bell cannot be prepared; the fallback timers serve then.
            await connection.execute("ALTER TABLE reactive_orch.events DISABLE TRIGGER ring")
        workers = [await stack.enter_async_context(WorkerProcess(database, name, options=QUICK)) for name in "ab"]
        for worker in workers:
            await worker.ready()
        await wait_settled(connection, members=2)
        writers = [
            OddWriter(await stack.enter_async_context(connected(database)), number, two_phase=two_phase)
            for number in range(6)
        ]
        async with asyncio.TaskGroup() as group:
            for writer in writers:
                group.create_task(writer.write(30))
        forgotten = [name for writer in writers for name in writer.left_prepared]
        assert bool(forgotten) is two_phase
        for number, name in enumerate(forgotten):
            await plain_insert(connection, f"meanwhile-{number}", 1)
            await connection.execute(f"{('COMMIT', 'ROLLBACK')[number % 2]} PREPARED '{name}'")
        await checked(connection)
        assert set(await handled_by(connection)) == {"a", "b"}
        given_up = "SELECT max(global_position) - count(*) FROM reactive_orch.events"
        assert await connection.fetchval(given_up) > 0, "positions were drawn in vain: there are gaps"


async def _end_prepared(connection: Connection) -> None:
    """Leave no prepared transaction behind a failure: its database could not be dropped."""
    for row in await connection.fetch("SELECT gid FROM pg_prepared_xacts WHERE database = current_database()"):
        await connection.execute(f"ROLLBACK PREPARED '{row['gid']}'")


@pytest.mark.each_server
async def test_only_an_open_writer_of_this_database_holds_the_log_back(
    cluster: Cluster, template: str, database: str
) -> None:
    clone = cluster.clone_database(template, "clone_with_a_writer")
    try:
        async with prepared(database) as connection, WorkerProcess(database, "w1") as worker:
            await worker.ready()
            same = "SELECT 'reactive_orch.events'::regclass::oid"
            async with connected(clone) as elsewhere, elsewhere.transaction():
                assert await elsewhere.fetchval(same) == await connection.fetchval(same)
                await plain_insert(elsewhere, "elsewhere", 1)
                await _draw_in_vain(connection)  # a gap: the run of positions without one is read in any case
                await append_events(connection, 10)
                await checked(connection)
                assert (await worker.health())["frontier_held_s"] == 0
            async with connected(database) as here:
                transaction = here.transaction()
                await transaction.start()
                held = await plain_insert(here, "here", 1)
                await append_events(connection, 10)
                await _wait_held(worker, held - 1, for_s=0.5)
                assert max(position for by in (await handled_by(connection)).values() for position in by) < held
                await transaction.commit()
            await checked(connection)
    finally:
        cluster.drop_database("clone_with_a_writer")


async def _draw_in_vain(connection: Connection) -> None:
    transaction = connection.transaction()
    await transaction.start()
    await plain_insert(connection, "in vain", 1)
    await transaction.rollback()


async def _wait_held(worker: WorkerProcess, position: int, for_s: float) -> None:
    async def held() -> bool:
        body = await worker.health()
        return bool(body["settled_position"] == position and body["frontier_held_s"] > for_s)

    await wait_until(held, what=f"the log is held at {position}")


async def test_who_holds_the_log_is_named(database: str) -> None:
    async with (
        prepared(database) as connection,
        contextlib.AsyncExitStack() as stack,
        WorkerProcess(database, "w1") as worker,
    ):
        await worker.ready()
        await append_events(connection, 5)
        holder = await asyncpg.connect(database, server_settings={"application_name": "slow shop"})
        try:
            pid = holder.get_server_pid()
            await holder.execute("BEGIN")
            await plain_insert(holder, "held", 1)
            await append_events(connection, 5)
            who = rf"pid {pid} of postgres \(slow shop\), idle in transaction, open for \d+\.\d s"
            await worker.said(rf"the log cannot be read beyond position 5, held by {who}")
            assert re.search(rf"held by {who}", (await run("status", DATABASE_URL=database)).done())
            await holder.execute("COMMIT")
        finally:
            await holder.close()
        await checked(connection)
        assert "held by" not in (await run("status", DATABASE_URL=database)).done()

        await connection.execute("ALTER TABLE reactive_orch.events DISABLE TRIGGER ring")
        await connection.execute("BEGIN")
        await plain_insert(connection, "prepared", 1)
        await connection.execute("PREPARE TRANSACTION 'of the shop'")
        stack.push_async_callback(_end_prepared, connection)
        await append_events(connection, 5)
        await connection.execute("SELECT reactive_orch.notify('reactive_orch_events', '')")  # for the trigger
        await worker.said(r"held by prepared transaction 'of the shop' of postgres")
        assert "prepared transaction 'of the shop' of postgres" in (await run("status", DATABASE_URL=database)).done()
        await connection.execute("COMMIT PREPARED 'of the shop'")
        await checked(connection)


class Believer:
    """Somebody who believes that all partitions are his, and moves checkpoints for as long as it is told to."""

    def __init__(self, database: Database, name: str) -> None:
        self._database = database
        self._name = name
        self._random = random.Random(name)
        self.won = self.refused = 0

    async def move(self, again: Callable[[], bool]) -> None:
        known: dict[int, Checkpoint] = {}
        while again():
            async with self._database.processing() as connection:
                if not known:
                    rows = await connection.fetch(_CONTESTED)
                    known = {row["partition"]: Checkpoint(row["position"], row["epoch"]) for row in rows}
                chosen = self._random.sample(sorted(known), self._random.randint(1, 8))
                swaps = [Swap(p, known[p], known[p].position + self._random.randint(1, 5)) for p in chosen]
                try:
                    async with checkpoints.Batches(connection, "test", Subscription("contested", OWN_LOG)).batch(swaps):
                        for swap in swaps:
                            await connection.execute(
                                "INSERT INTO moves VALUES ($1, $2, $3, $4)",
                                *(self._name, swap.partition, swap.expected.position, swap.target),
                            )
                        await asyncio.sleep(self._random.choice((0, 0, 0.001)))
                    self.won += 1
                    known |= {swap.partition: Checkpoint(swap.target, swap.expected.epoch) for swap in swaps}
                except Superseded:
                    self.refused += 1
                    known = {}


_CONTESTED = "SELECT partition, position, epoch FROM reactive_orch.checkpoints WHERE partition < 16"


async def test_thousands_of_contested_swaps(database: str) -> None:
    async with connected(database) as connection, contextlib.AsyncExitStack() as stack:
        await connection.execute("CREATE TABLE moves (who text, partition smallint, low bigint, high bigint)")
        await run_until_idle(database, recorder("contested"))  # registers the projection
        databases = [Database(database, label=f"rival-{n}", connections_max=4, handler_timeout_s=60) for n in range(2)]
        for rival in databases:
            await rival.open()
            stack.push_async_callback(rival.close)
        believers = [Believer(rival, f"{n}-{i}") for n, rival in enumerate(databases) for i in range(4)]
        ends = asyncio.get_running_loop().time() + 5

        def again() -> bool:
            enough = sum(believer.refused for believer in believers) >= 3000
            return asyncio.get_running_loop().time() < ends and not enough

        async with asyncio.timeout(60), asyncio.TaskGroup() as group:
            for believer in believers:
                group.create_task(believer.move(again))
        await stack.aclose()

        assert sum(believer.refused for believer in believers) > 100
        assert all(believer.won for believer in believers)
        assert sum(b.won for b in believers) <= await connection.fetchval("SELECT count(*) FROM moves")
        # One chain per partition: each move begins where the one before has ended, the last at the checkpoint.
        assert not await connection.fetch(
            "SELECT FROM (SELECT low, lag(high, 1, 0::bigint) OVER (PARTITION BY partition ORDER BY high, low) "
            "AS end_before FROM moves) m WHERE low <> end_before"
        )
        assert not await connection.fetch(
            "SELECT FROM reactive_orch.checkpoints c "
            "WHERE position <> coalesce((SELECT max(high) FROM moves m WHERE m.partition = c.partition), 0)"
        )
        assert await _deadlocks(connection) == 0


async def _deadlocks(connection: Connection) -> int:
    sql = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
    return int(await connection.fetchval(sql))


@contextlib.asynccontextmanager
async def usurping(url: str, projection: Projection) -> AsyncIterator[Runner]:
    """Have a runner that was given all partitions by nobody."""
    async with Node(Config(database_url=url, batch_events=10)) as node:
        scope = Worker(node, "test", [projection])._scope(projection)  # noqa: SLF001 - as a worker would
        runner = Runner(scope, caches_of([projection])[projection.subscription])
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(runner.run)
            runner.assign(frozenset(range(PARTITIONS)))
            yield runner
            tasks.cancel_scope.cancel()


async def test_two_that_believe_they_own_everything(database: str) -> None:
    async with prepared(database) as connection:
        await run_until_idle(database, handled)  # registers the projection
        async with usurping(database, handled) as one, usurping(database, handled) as two:
            # Not so many that the loser of one is always too late for the next.
            async with Load(database, writers=1, keys=30, pause_s=0.05) as load:

                async def both_have_won() -> bool:
                    return min(one.lanes.events_handled, two.lanes.events_handled) > 0

                await wait_until(both_have_won, what="both win batches")
                # Now as much as they can take, so that they meet all the time, whoever wins.
                async with Load(database, keys=30, count=1500, pause_s=0.002) as storm:
                    await storm.finished()
            await checked(connection)

            written = len(load.committed) + len(storm.committed)

            async def all_are_counted() -> bool:
                return one.lanes.events_handled + two.lanes.events_handled >= written

            await wait_until(all_are_counted, what="the last batch is counted")
            assert one.lanes.events_handled + two.lanes.events_handled == written
        assert await _deadlocks(connection) == 0


async def test_a_batch_that_is_cancelled_anywhere_leaves_nothing_behind(database: str) -> None:
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    await run_until_idle(database, recorder("contested"))  # registers the projection
    pool = Database(database, label="cancelled", connections_max=1, handler_timeout_s=60)
    await pool.open()

    async def two_batches() -> None:
        known = {row["partition"]: row["position"] for row in await connection.fetch(_CONTESTED)}
        async with (
            pool.processing() as own,
            checkpoints.Batches(own, "test", Subscription("contested", OWN_LOG)) as batches,
        ):
            for partition in range(2):
                swap = Swap(partition, Checkpoint(known[partition], 0), known[partition] + 1)
                async with batches.batch([swap], lambda: True):
                    await own.execute("SELECT 1")

    cancelled = 0
    async with connected(database) as connection:
        for turns in range(60):
            await two_batches()  # nobody holds the rows, and the connection is fit for use
            task = asyncio.create_task(two_batches())
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            cancelled += task.cancelled()
    await pool.close()
    assert cancelled
    assert complaints == []


async def test_a_connection_that_ends_as_it_is_given_back(database: str) -> None:
    pool = Database(database, label="ending", connections_max=1, handler_timeout_s=60)
    await pool.open()
    async with pool.processing() as connection:
        assert await connection.fetchval("SELECT 1") == 1
        connection._con._transport.abort()  # type: ignore[union-attr]  # noqa: SLF001 - noticed in the loop's next turn
    async with pool.processing() as connection:
        assert await connection.fetchval("SELECT 2") == 2, "another one"
    await pool.close()


async def test_the_loser_of_a_swap_leaves_nothing_behind(database: str) -> None:
    async with connected(database) as connection, connected(database) as loser_effects:
        await run_until_idle(database, recorder("contested"))  # registers the projection
        await connection.execute("CREATE TABLE effects (who text)")
        rivals = [Database(database, label=name, connections_max=1, handler_timeout_s=60) for name in "ab"]
        for rival in rivals:
            await rival.open()
        mine, all_of_them = Swap(0, Checkpoint(0, 0), 5), [Swap(p, Checkpoint(0, 0), 9) for p in range(2)]
        async with rivals[0].processing() as first, rivals[1].processing() as second:
            async with checkpoints.Batches(first, "test", Subscription("contested", OWN_LOG)).batch([mine]):
                await first.execute("INSERT INTO effects VALUES ('first')")
                # Held by another: refused at once, without waiting, and the free row is not kept either.
                with pytest.raises(Superseded):
                    async with (
                        asyncio.timeout(10),
                        checkpoints.Batches(second, "test", Subscription("contested", OWN_LOG)).batch(all_of_them),
                    ):
                        pytest.fail("it has no right to begin")
                assert not second.is_in_transaction()
                assert await loser_effects.fetchval("SELECT count(*) FROM effects") == 0
            # Moved on meanwhile: the expected position is history.
            with pytest.raises(Superseded):
                async with checkpoints.Batches(second, "test", Subscription("contested", OWN_LOG)).batch(all_of_them):
                    pytest.fail("it has no right to begin")
            # Moved and rewound: the position is as expected again, the epoch is not.
            await connection.fetchval("SELECT reactive_orch.rewind('test', 'contested', 0)")
            with pytest.raises(Superseded):
                async with checkpoints.Batches(second, "test", Subscription("contested", OWN_LOG)).batch(all_of_them):
                    pytest.fail("it has no right to begin")
        for rival in rivals:
            await rival.close()
        rows = await connection.fetch("SELECT DISTINCT position, epoch FROM reactive_orch.checkpoints")
        assert [tuple(row) for row in rows] == [(0, 1)]
        assert await connection.fetchval("SELECT array_agg(who) FROM effects") == ["first"]


def saying(*statements: str) -> Callable[[Connection], Awaitable[None]]:
    async def say(tx: Connection) -> None:
        for statement in statements:
            await tx.execute(statement)

    return say


async def _swallow_error(tx: Connection) -> None:
    with contextlib.suppress(asyncpg.DivisionByZeroError):
        await tx.execute("SELECT 1 / 0")


async def _raise(_tx: Connection) -> None:
    msg = "no such customer"
    raise RuntimeError(msg)


async def _leave_a_savepoint_broken(tx: Connection) -> None:
    with contextlib.suppress(asyncpg.DivisionByZeroError):
        await tx.execute("SAVEPOINT s")
        await tx.execute("SELECT 1 / 0")


async def _append_what_conflicts(tx: Connection) -> None:
    await append(tx, [event("k", "Echo")], Expected.NO_STREAM)


_ENDED = "a handler may not end the transaction|the handler ended the transaction"

MISDEEDS: dict[str, tuple[Callable[[Connection], Awaitable[None]], str]] = {
    "raises": (_raise, "RuntimeError: no such customer"),
    "swallows a database error": (_swallow_error, "caught a database error and went on"),
    "leaves a savepoint broken": (_leave_a_savepoint_broken, "caught a database error and went on"),
    "COMMIT": (saying("COMMIT"), _ENDED),
    "ROLLBACK": (saying("ROLLBACK"), _ENDED),
    "COMMIT, BEGIN": (saying("COMMIT", "BEGIN"), _ENDED),
    "ROLLBACK, BEGIN": (saying("ROLLBACK", "BEGIN"), _ENDED),
    "COMMIT AND CHAIN": (saying("COMMIT AND CHAIN"), _ENDED),
    "ROLLBACK AND CHAIN": (saying("ROLLBACK AND CHAIN"), _ENDED),
    "COMMIT inside one string": (saying("COMMIT; BEGIN; SELECT 1"), _ENDED),
    "PREPARE TRANSACTION": (saying("PREPARE TRANSACTION 'x'"), _ENDED),
    "appends what conflicts": (_append_what_conflicts, "is at version 7, not at 0"),
}


@pytest.mark.parametrize("batch", EVENT_BY_EVENT_AND_IN_BATCHES)
@pytest.mark.parametrize("misdeed", MISDEEDS)
async def test_a_handler_that_misbehaves(database: str, misdeed: str, batch: bool) -> None:  # noqa: FBT001 - a case
    act, says = MISDEEDS[misdeed]
    projection = acting_at_bad_events(act, batch=batch)
    async with prepared(database) as connection:
        good = [event(f"other-{n}") for n in range(20)]
        await append(connection, [*good, *[event()] * 3, event("k", "Bad"), *[event()] * 3, *good])
        failed = await failure(database, projection)
        assert re.search(rf"projection 'handled' failed at event position 24 in 1 attempts: .*({says})", str(failed))
        await assert_effects_match_checkpoints(connection)
        done = await connection.fetch("SELECT position FROM handled WHERE key = 'k' ORDER BY id")
        assert [row[0] for row in done] == [21, 22, 23], "what comes before the bad event of its key, and no more"
        assert not await connection.fetchval("SELECT count(*) FROM reactive_orch.events WHERE event_type = 'Echo'")
        await run_until_idle(database, handled)
        await checked(connection)


@pytest.mark.parametrize("where", ["in the handler", "in the database"])
async def test_a_handler_that_takes_too_long(database: str, where: str) -> None:
    @make_projection("handled")
    async def slow(e: Event, tx: Connection) -> None:
        await record(tx, "handled", e)
        if e.event_type == "Bad":
            await (asyncio.sleep(60) if where == "in the handler" else tx.execute("SELECT pg_sleep(60)"))

    async with prepared(database) as connection:
        await append(connection, [event(), event("k", "Bad"), event()])
        failed = await failure(database, slow, handler_timeout_s=0.5)
        assert re.search(r"position 2 in 1 attempts: the handler took longer than 0.5 s", str(failed))
        await assert_effects_match_checkpoints(connection)

        async def sleeps() -> bool:
            busy = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(60)%' AND pid <> pg_backend_pid()"
            return not await connection.fetchval(busy)

        await wait_until(sleeps, what="the statement that took too long was ended")
        await run_until_idle(database, handled)
        await checked(connection)


async def test_what_a_handler_appends_comes_with_its_batch(database: str) -> None:
    attempts = 0

    @make_projection("handled")
    async def echoing(e: Event, tx: Connection) -> None:
        nonlocal attempts
        await record(tx, "handled", e)
        if e.event_type != "Good":
            return
        await append(tx, [event(e.aggregate_id, "Echo")])
        assert not await tx.fetchval("SELECT count(*) FROM reactive_orch.events WHERE event_type = 'Echo'")
        with contextlib.suppress(KeyError):
            async with tx.transaction():
                await append(tx, [event(e.aggregate_id, "Regretted")])
                raise KeyError
        attempts += 1
        if attempts < 3:
            msg = "not yet"
            raise RuntimeError(msg)

    async with prepared(database) as connection, serving(database, echoing, retries=5):
        await append(connection, [event()])

        async def echoed() -> bool:
            types = await connection.fetch("SELECT event_type FROM reactive_orch.events ORDER BY global_position")
            return [row[0] for row in types] == ["Good", "Echo"]

        await wait_until(echoed, what="exactly one echo")
        await checked(connection)
        assert attempts == 3


async def test_what_a_handler_appends_holds_nobody_back(database: str) -> None:
    at_it, go_on = asyncio.Event(), asyncio.Event()

    @make_projection("echoing")
    async def echoing(e: Event, tx: Connection) -> None:
        await record(tx, "echoing", e)
        if e.event_type == "Good":
            await append(tx, [event("echo", "Echo")])
            at_it.set()
            await go_on.wait()

    async with prepared(database) as connection, serving(database, echoing, handled):
        await append(connection, [event()])
        async with asyncio.timeout(30):
            await at_it.wait()
        await append(connection, [event("other", "Other")])
        await wait_handled(connection)
        assert not await handled_by(connection, "echoing")
        go_on.set()
        await checked(connection, "echoing", "handled")
        assert await connection.fetchval("SELECT count(*) FROM handled") == 6


async def test_a_rewind_under_load_handles_everything_once_more(database: str) -> None:
    async with prepared(database) as connection, contextlib.AsyncExitStack() as stack:
        workers = [await stack.enter_async_context(WorkerProcess(database, name, options=QUICK)) for name in "ab"]
        for worker in workers:
            await worker.ready()
        async with Load(database, keys=40, pause_s=0.005) as load:
            await wait_all_handle(connection, "ab")
            await load.more(200)
            words = ("--replica-set", "test", "--projection", "handled", "--to", "0", "--yes")
            (await run("rewind", *words, DATABASE_URL=database)).done()
            await load.more(200)

        async def started_over() -> bool:
            return not await connection.fetchval(_NOT_YET_AGAIN)

        await wait_until(started_over, what="everything that was handled before the rewind is handled again")
        await wait_handled(connection)
        # Per key: versions 1 … k before the rewind, 1 … n after it, in this order and without a gap.
        for row in await connection.fetch("SELECT key, array_agg(version ORDER BY id) AS v FROM handled GROUP BY key"):
            last = max(row["v"])
            before = len(row["v"]) - last
            assert row["v"] == [*range(1, before + 1), *range(1, last + 1)], row["key"]
        twice = await connection.fetchval("SELECT count(*) - count(DISTINCT position) FROM handled")
        assert twice >= 200
        assert await connection.fetchval("SELECT bool_and(epoch = 1) FROM reactive_orch.checkpoints")


# A partition begins again at its first event: the first event of each partition was handled twice, if anything was.
_NOT_YET_AGAIN = """
SELECT count(*) FROM (SELECT DISTINCT ON (e.partition) e.global_position FROM reactive_orch.events e
                      ORDER BY e.partition, e.global_position) first
WHERE (SELECT count(*) FROM handled h WHERE h.position = first.global_position) < 2
"""


@pytest.mark.parametrize("to", ["keep", thorough("start")])
async def test_another_filter_waits_for_a_rewind_and_takes_over_without_a_restart(database: str, to: str) -> None:
    def options(name: str) -> tuple[str, ...]:
        return (f"integration_test.harness.projections:{name}",)

    async def write(count: int) -> None:
        async with connected(database) as writer:
            kinds = ["Order", "Invoice"] * count
            await append(writer, [NewEvent(aggregate_type=kind, aggregate_id="1", event_type="E") for kind in kinds])

    async def by() -> list[tuple[int, str]]:
        rows = await connection.fetch("SELECT position, worker FROM handled ORDER BY id")
        return [(row["position"], row["worker"]) for row in rows]

    async with (
        prepared(database) as connection,
        WorkerProcess(database, "old", projections=options("orders"), options=QUICK) as old,
    ):
        await old.ready()
        await write(5)
        await wait_until(_handles(connection, 5), what="the orders are handled")
        async with WorkerProcess(database, "new", projections=options("orders_and_invoices"), options=QUICK) as new:
            await new.said(r"filtered is recorded with another filter.*rewind")
            await wait_until(_says(new, "nothing to run until a filter is accepted"))
            await write(5)
            await wait_until(_handles(connection, 10), what="the old one goes on unharmed")
            words = ("--replica-set", "test", "--projection", "filtered", "--to", to, "--yes")
            (await run("rewind", *words, DATABASE_URL=database)).done()
            await new.said("its filter is accepted, it is run here now")
            await new.ready()
            await old.said("another filter")
            await write(5)
            expected = 10 + (30 if to == "start" else 10)
            await wait_until(_handles(connection, expected), what="the new one handles both kinds")
            everything = await by()
            assert {worker for _, worker in everything[:10]} == {"old"}
            assert {worker for _, worker in everything[10:]} == {"new"}
            assert sorted(position for position, _ in everything[10:]) == list(
                range(1 if to == "start" else 21, 31),
            )


def _says(worker: WorkerProcess, reason: str) -> Callable[[], Awaitable[bool]]:
    async def said() -> bool:
        return any(reason in given for given in (await worker.health())["reasons"])

    return said


def _handles(connection: Connection, count: int) -> Callable[[], Awaitable[bool]]:
    async def reached() -> bool:
        return bool(await connection.fetchval("SELECT count(*) FROM handled") >= count)

    return reached


async def test_without_any_notification(database: str) -> None:
    async with prepared(database) as connection:
        await connection.execute(
            "CREATE OR REPLACE FUNCTION reactive_orch.notify(channel text, payload text) RETURNS void "
            "LANGUAGE plpgsql AS 'BEGIN END'"
        )
        async with (
            WorkerProcess(database, "a", options=QUICK) as one,
            WorkerProcess(database, "b", options=QUICK) as two,
            Load(database, pause_s=0.02) as load,
        ):
            await one.ready()
            await two.ready()
            await wait_settled(connection, members=2)
            await wait_all_handle(connection, "ab")
            await one.stop()
            await wait_settled(connection, members=1)
            await load.stop()
            await checked(connection)


@pytest.mark.parametrize("mode", [thorough("fast"), "immediate"])
async def test_the_database_restarts_under_load(database: str, cluster: Cluster, mode: StopMode) -> None:
    async with contextlib.AsyncExitStack() as stack:
        async with prepared(database):
            pass
        workers = [await stack.enter_async_context(WorkerProcess(database, name, options=QUICK)) for name in "ab"]
        for worker in workers:
            await worker.ready()
        async with Load(database, pause_s=0.005) as load:
            await load.more(100)
            await asyncio.to_thread(cluster.restart, mode)
            await load.more(100)
            async with connected(database) as connection:
                await wait_all_handle(connection, "ab")
            await asyncio.to_thread(cluster.restart, mode)
            await load.more(100)
            async with connected(database) as connection:
                await wait_all_handle(connection, "ab")
        async with connected(database) as connection:
            await load.assert_in_log(connection)
            await checked(connection)
        for worker in workers:
            await worker.stop()


async def test_backends_are_terminated_at_any_moment(database: str) -> None:
    chance = random.Random(42)
    async with prepared(database) as connection, contextlib.AsyncExitStack() as stack:
        workers = [await stack.enter_async_context(WorkerProcess(database, name, options=QUICK)) for name in "ab"]
        for worker in workers:
            await worker.ready()
        async with Load(database, pause_s=0.005) as load:
            terminated: Counter[str] = Counter()
            while terminated.total() < 30 or not {"membership", "tail", "work"} <= terminated.keys():
                await load.more(chance.randint(1, 20))
                kinds: dict[str, list[int]] = {}
                for row in await connection.fetch(_BACKENDS):
                    kinds.setdefault(row["application_name"].split(":")[1], []).append(row["pid"])
                if kinds:
                    kind = chance.choice(sorted(kinds))
                    await connection.execute("SELECT pg_terminate_backend($1)", chance.choice(kinds[kind]))
                    terminated[kind] += 1
            await wait_all_handle(connection, "ab")
        await load.assert_in_log(connection)
        await checked(connection)
        for worker in workers:
            await worker.stop()


_BACKENDS = """
SELECT pid, application_name FROM pg_stat_activity
WHERE datname = current_database() AND application_name LIKE 'reactive\\_orch:%' ORDER BY application_name, pid
"""


async def test_a_database_restored_to_an_older_state(database: str) -> None:
    sequence = "reactive_orch.events_global_position_seq"
    says = "a checkpoint stands at position 100, beyond the end of the log at 60.*restored to an older state"
    async with prepared(database) as connection, WorkerProcess(database, "w1") as worker:
        await worker.ready()
        await append_events(connection, 100, keys=1)
        await checked(connection)

        async def saved() -> bool:
            return bool(await connection.fetchval("SELECT max(position) = 100 FROM reactive_orch.checkpoints"))

        await wait_until(saved, what="a checkpoint at the end of the log")
        async with connection.transaction():
            await connection.execute("DELETE FROM reactive_orch.events WHERE global_position > 60")
            await connection.execute(f"SELECT setval('{sequence}', 60)")
            await connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid IN "
                "(SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'reactive%')"
            )
        assert await worker.wait() == CONFIG
        # Whichever sees it first, a look at the head or the check of a new connection.
        assert re.search(rf"reactive_orch: ({says}|the log's sequence moved back from 100 to 60)", worker.log[-1])

        started = await run("--replica-set", "test", "--http", "127.0.0.1:0", DATABASE_URL=database)
        refused = "not the one that these projections have read, from position 61 on at the latest: handled"
        assert refused in started.complaint()
        # New events at positions that checkpoints have passed: nobody skips them unnoticed.
        await append_events(connection, 30, keys=1)
        started = await run("--replica-set", "test", "--http", "127.0.0.1:0", DATABASE_URL=database)
        assert refused in started.complaint()
        await connection.execute("DELETE FROM handled WHERE position > 60")
        (
            await run(
                *("rewind", "--replica-set", "test", "--projection", "handled", "--to", "60", "--yes"),
                DATABASE_URL=database,
            )
        ).done()
        async with WorkerProcess(database, "w2") as healed:
            await healed.ready()
            await checked(connection)


class Reads:
    """What the log was asked for, and what it gave."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.sizes: list[list[int]] = []
        original = windows.read_window

        async def counted(*arguments: Any) -> Any:
            found = await original(*arguments)
            self.sizes.append([len(e.payload) for e in found.events])
            return found

        monkeypatch.setattr(windows, "read_window", counted)


async def test_a_gap_of_a_hundred_million_positions(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    reads = Reads(monkeypatch)
    async with prepared(database) as connection:
        await append_events(connection, 10)
        await connection.execute("SELECT setval('reactive_orch.events_global_position_seq', 100000000)")
        await append_events(connection, 10)
        await run_until_idle(database, handled)
        await checked(connection)
        assert len(reads.sizes) < 100
        await connection.execute("SELECT setval('reactive_orch.events_global_position_seq', 200000000)")
        async with serving(database, recorder("handled")):
            await append_events(connection, 10)
            await checked(connection)
        assert len(reads.sizes) < 200


async def test_large_payloads_are_read_a_few_at_a_time(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    reads = Reads(monkeypatch)
    megabyte = 1024 * 1024
    sizes = [1, *[3 * megabyte] * 7, 1, 20 * megabyte, 1, 8 * megabyte, *[1] * 50]
    async with prepared(database) as connection:
        for number, size in enumerate(sizes):
            await append(connection, [event(f"key-{number % 5}", payload=b"x" * size)])
        await run_until_idle(database, handled)
        await checked(connection)
    for given in reads.sizes:
        assert sum(given[:-1]) < 8 * megabyte, "what is before the last one left room"
    assert sorted(size for given in reads.sizes for size in given) == sorted(sizes)
