"""What a replica set promises, told with worker processes as their users start them."""

from __future__ import annotations

import contextlib
import itertools
import re
import signal
from collections import Counter
from typing import TYPE_CHECKING

import anyio
import pytest

from integration_test.harness.checkers import (
    assert_each_once,
    assert_in_order,
    assert_nobody_left,
    backends,
    generations,
    handled_by,
    owners,
    wait_all_handle,
    wait_handled,
    wait_settled,
)
from integration_test.harness.command_line import run
from integration_test.harness.connections import connected, prepared
from integration_test.harness.load import Load, append_events, gate_closed
from integration_test.harness.processes import WorkerProcess, partitions_of
from integration_test.harness.projections import CURED, POISON, recorder
from integration_test.harness.waiting import wait_until
from reactive_orch import Config, NewEvent, Node, Worker, append
from reactive_orch.config import COORDINATION_MAX
from reactive_orch.model import OWN_LOG, Subscription, WorkerState

if TYPE_CHECKING:
    from collections.abc import Iterable

    from integration_test.harness.connections import Connection
    from integration_test.harness.load import AtGate

PARTITIONS = 64
QUICK = ("--heartbeat", "0.3", "--stale-after", "2")


def loads(held_by: Iterable[int]) -> list[int]:
    """Return how many partitions each owner has, the fewest first."""
    return sorted(Counter(held_by).values())


def changed(before: list[int], after: list[int]) -> set[tuple[int, int]]:
    """Return (old, new) owners of the partitions that moved."""
    return {(was, now) for was, now in zip(before, after, strict=True) if was != now}


async def checked(connection: Connection, *projections: str) -> dict[str, set[int]]:
    """Wait for the end of the log, check everything, and return who handled what of the first projection."""
    for projection in projections or ("handled",):
        await wait_handled(connection, projection)
        await assert_each_once(connection, projection)
    await assert_in_order(connection)
    return await handled_by(connection, *projections[:1])


async def test_single_worker_processes_events(database: str) -> None:
    projections = ("handled", "handled_in_batches")
    async with prepared(database) as connection:
        await append_events(connection, 150)
        with contextlib.suppress(ZeroDivisionError):
            async with connection.transaction():
                await append(connection, [NewEvent(aggregate_type="Ghost", aggregate_id="1", event_type="Ghost")])
                _ = 1 / 0
        async with Load(database) as load, WorkerProcess(database, "a", projections=projections) as a:
            await a.ready()
            await load.more(200)
            await wait_settled(connection, members=1)
            assert partitions_of(await a.health()) == dict.fromkeys(projections, PARTITIONS)
            await load.stop()
            assert (await checked(connection, *projections)).keys() == {"a"}
            await load.assert_in_log(connection)
            await a.stop()
        assert [row["reason"] for row in await generations(connection)] == ["join", "leave"]
        await assert_nobody_left(connection)


async def test_two_workers_partition_events(database: str) -> None:
    async with prepared(database) as connection, WorkerProcess(database, "a") as a, WorkerProcess(database, "b") as b:
        await a.ready()
        await b.ready()
        await wait_settled(connection, members=2)
        async with Load(database) as load:
            await wait_all_handle(connection, "ab")
            await load.more(200)
        by_worker = await checked(connection)
        assert by_worker.keys() == {"a", "b"}
        assert not by_worker["a"] & by_worker["b"]
        assert loads(await owners(connection)) == [32, 32]
        await load.assert_in_log(connection)
        assert await shared_keys(connection) == 0


async def shared_keys(connection: Connection) -> int:
    """Return how many keys more than one worker has handled."""
    rows = await connection.fetch("SELECT key FROM public.handled GROUP BY key HAVING count(DISTINCT worker) > 1")
    return len(rows)


async def test_third_worker_joins_all_reconfigure(database: str) -> None:
    async with (
        prepared(database) as connection,
        WorkerProcess(database, "a") as a,
        WorkerProcess(database, "b") as b,
        Load(database) as load,
    ):
        await a.ready()
        await b.ready()
        generation = await wait_settled(connection, members=2)
        before = await owners(connection)
        await wait_all_handle(connection, "ab")
        async with WorkerProcess(database, "c") as c:
            await c.ready()
            joined = await wait_settled(connection, members=3)
            await wait_all_handle(connection, "abc")
            after = await owners(connection)
            third = await c.member()
            await load.stop()
            by_worker = await checked(connection)
        assert by_worker.keys() == {"a", "b", "c"}
        assert (joined["number"], joined["reason"], joined["subjects"]) == (generation["number"] + 1, "join", [third])
        assert joined["moved"] == PARTITIONS // 3
        assert loads(after) == [21, 21, 22]
        assert {new for _, new in changed(before, after)} == {third}, "only what the third must get has moved"
        assert after.count(third) == joined["moved"]
        for worker in (a, b):
            await worker.said(rf"generation {joined['number']} .*took 0, gave 1[01], kept")


async def test_worker_leaves(database: str) -> None:
    async with (
        prepared(database) as connection,
        WorkerProcess(database, "a") as a,
        WorkerProcess(database, "b") as b,
        WorkerProcess(database, "c") as c,
        Load(database) as load,
    ):
        for worker in (a, b, c):
            await worker.ready()
        generation = await wait_settled(connection, members=3)
        await wait_all_handle(connection, "abc")
        before, leaver = await owners(connection), await c.member()
        await c.stop()
        left = await wait_settled(connection, members=2)
        after = await owners(connection)
        await wait_all_handle(connection, "ab")
        await load.stop()
        await checked(connection)
        assert (left["number"], left["reason"], left["subjects"]) == (generation["number"] + 1, "leave", [leaver])
        assert left["moved"] == before.count(leaver)
        assert {old for old, _ in changed(before, after)} == {leaver}, "only what the leaver had has moved"
        assert loads(after) == [32, 32]


async def test_stale_worker_cleanup(database: str) -> None:
    projection = "handled_at_gate"
    async with (
        prepared(database) as connection,
        WorkerProcess(database, "a", projections=[projection], options=QUICK) as a,
        WorkerProcess(database, "b", projections=[projection], options=QUICK) as b,
    ):
        await a.ready()
        await b.ready()
        await wait_settled(connection, members=2)
        survivor, frozen = await a.member(), await b.member()
        async with Load(database), gate_closed(database) as at_gate:
            # Both wait inside a batch: the frozen one goes on holding its rows.
            await wait_until(lambda: equals(at_gate, 2), what="both are in a batch")
            b.send(signal.SIGSTOP)
            await wait_until(lambda: is_removed(connection, frozen), what="the frozen worker is removed")
        # Nobody joins, and yet what the frozen one held is served.
        await wait_handled(connection, projection)
        assert set(await owners(connection, projection)) == {survivor}
        removal = (await generations(connection))[-1]
        assert (removal["reason"], removal["subjects"], removal["members"]) == ("stale", [frozen], [survivor])

        b.send(signal.SIGCONT)
        await b.said(f"worker {frozen} of test: removed by the others")
        await wait_settled(connection, members=2)
        async with Load(database) as load:
            await wait_all_handle(connection, "ab", projection)
        await checked(connection, projection)
        await load.assert_in_log(connection)
        assert await b.member() > max(survivor, frozen)
        assert len([line for line in b.log if "membership connection is back" in line]) <= 1, b.log
        assert loads(await owners(connection, projection)) == [32, 32]


async def equals(count: AtGate, wanted: int) -> bool:
    return await count() == wanted


async def is_removed(connection: Connection, member: int) -> bool:
    return not await connection.fetchval("SELECT count(*) FROM reactive_orch.members WHERE id = $1", member)


async def test_graceful_shutdown_during_coordination(database: str) -> None:
    projection = "handled_at_gate"
    one_batch = ("--batch", "1000")
    async with prepared(database) as connection, contextlib.AsyncExitStack() as workers:

        async def started(name: str) -> WorkerProcess:
            worker = WorkerProcess(database, name, projections=[projection], options=one_batch)
            return await workers.enter_async_context(worker)

        await append_events(connection, 1000, keys=1000)
        async with gate_closed(database) as at_gate:
            a = await started("a")
            await wait_until(at_gate, what="a batch with every partition in it is in flight")
            # The others cannot get their partitions before that batch ends: the rebalance goes on as long as wanted.
            b = await started("b")
            await wait_until(lambda: is_unsettled(connection, members=2), what="b takes part in a rebalance")
            await b.stop()
            c = await started("c")
            await wait_until(lambda: is_unsettled(connection, members=2), what="c takes part in a rebalance")
            a.send(signal.SIGTERM)
            await wait_until(lambda: is_stopping(a), what="a is stopping")
            assert await at_gate() == 1
        assert await a.wait() == 0
        await wait_settled(connection, members=1)
        await append_events(connection, 100)
        by_worker = await checked(connection, projection)
        # The batch in flight is committed as far as it went, since its time was up behind the gate; a begins no other.
        batches = await connection.fetchval("SELECT count(DISTINCT h.txid) FROM handled h WHERE h.worker = 'a'")
        assert batches == 1
        assert {name: len(positions) for name, positions in by_worker.items()} == {
            "a": len(by_worker["a"]),
            "c": 1100 - len(by_worker["a"]),
        }
        assert [row["reason"] for row in await generations(connection)] == ["join", "join", "leave", "join", "leave"]

        # Somebody sits on the replica set's row, so that nobody can be admitted.
        async with connected(database) as rival, rival.transaction():
            await rival.execute("SELECT FROM reactive_orch.replica_sets WHERE name = 'test' FOR NO KEY UPDATE")
            d = await started("d")
            await wait_until(lambda: somebody_is_waiting(connection), what="d asks to be admitted")
            await d.stop()
        await c.stop()
        assert (await generations(connection))[-1]["number"] == 6, "who was never admitted makes no generation"
        await assert_nobody_left(connection)


async def is_unsettled(connection: Connection, members: int) -> bool:
    last = (await generations(connection))[-1]
    return len(last["members"]) == members and last["completed_at"] is None


async def is_stopping(worker: WorkerProcess) -> bool:
    worker.assert_running()
    return bool((await worker.health())["status"] == "stopping")


async def somebody_is_waiting(connection: Connection) -> bool:
    return bool(await connection.fetchval("SELECT count(*) FROM reactive_orch.members WHERE state = 'waiting'"))


async def test_graceful_shutdown_while_starting(database: str) -> None:
    async with prepared(database) as connection:

        async def is_connected(_: WorkerProcess) -> bool:
            return await backends(connection) > 0

        async def says_where_it_is(worker: WorkerProcess) -> bool:
            return worker.health_url is not None

        async def has_a_row(_: WorkerProcess) -> bool:
            return bool(await connection.fetchval("SELECT count(*) FROM reactive_orch.members"))

        for moment in (is_connected, says_where_it_is, has_a_row):
            async with WorkerProcess(database, "a") as a:
                await wait_until(lambda a=a, moment=moment: moment(a), what=moment.__name__)  # type: ignore[misc]
                await a.stop()
            await assert_nobody_left(connection)


async def test_graceful_shutdown_during_execution(database: str) -> None:
    projection = "handled_at_gate"
    async with prepared(database) as connection:
        await append_events(connection, 60)

        def worker(name: str) -> WorkerProcess:
            return WorkerProcess(database, name, projections=[projection], options=["--batch", "20"])

        async with worker("a") as a:
            async with gate_closed(database) as at_gate:
                await wait_until(at_gate, what="a batch is in flight")
                a.send(signal.SIGTERM)
                await wait_until(lambda: is_stopping(a), what="a is stopping")
                assert await at_gate() == 1
                a.assert_running()
            assert await a.wait() == 0
        assert await handled_by(connection, projection) == {"a": set(range(1, 21))}, "that batch, and no other"
        assert await saved(connection, projection) == 20
        assert [row["reason"] for row in await generations(connection)] == ["join", "leave"]
        await assert_nobody_left(connection)

        async with gate_closed(database) as at_gate, worker("b") as b:
            await wait_until(at_gate, what="a batch is in flight")
            b.send(signal.SIGTERM)
            await wait_until(lambda: is_stopping(b), what="b is stopping")
            b.send(signal.SIGTERM)
            assert await b.wait() == 1
            assert await saved(connection, projection) == 20

        async with worker("c"):
            by_worker = await checked(connection, projection)
        assert by_worker == {"a": set(range(1, 21)), "c": set(range(21, 61))}


async def saved(connection: Connection, projection: str) -> int:
    """Return the greatest checkpoint."""
    sql = "SELECT max(c.position) FROM reactive_orch.checkpoints c WHERE c.projection = $1"
    return int(await connection.fetchval(sql, projection))


async def test_multiple_replica_sets_independent(database: str) -> None:
    async with (
        prepared(database) as connection,
        WorkerProcess(database, "a", "orders") as a,
        WorkerProcess(database, "b", "orders") as b,
        WorkerProcess(database, "c", "billing") as c,
        Load(database) as load,
    ):
        for worker in (a, b, c):
            await worker.ready()
        await wait_settled(connection, "orders", members=2)
        untouched = await wait_settled(connection, "billing", members=1)
        await wait_all_handle(connection, "ab", replica_set="orders")
        await wait_all_handle(connection, "c", replica_set="billing")
        assert loads(await owners(connection, replica_set="orders")) == [32, 32]
        assert loads(await owners(connection, replica_set="billing")) == [PARTITIONS]

        await a.stop()
        b.send(signal.SIGKILL)
        await b.wait()
        await wait_all_handle(connection, "c", replica_set="billing")
        async with WorkerProcess(database, "d", "orders") as d:
            await d.ready()
            await wait_all_handle(connection, "d", replica_set="orders")
            await load.stop()
            for replica_set in ("orders", "billing"):
                await wait_handled(connection, replica_set=replica_set)
                await assert_each_once(connection, replica_set=replica_set)
            await assert_in_order(connection)
            assert (await handled_by(connection, replica_set="orders")).keys() == {"a", "b", "d"}
            assert (await handled_by(connection, replica_set="billing")).keys() == {"c"}
        assert await generations(connection, "billing") == [untouched]


async def test_projection_error_handling(database: str) -> None:
    retries = 3
    async with (
        prepared(database) as connection,
        WorkerProcess(database, "healthy") as healthy,
        WorkerProcess(
            database,
            "failing",
            projections=["failing", "handled"],
            options=["--retries", str(retries), "--on-error", "halt"],
        ) as failing,
    ):
        await healthy.ready()
        await failing.ready()
        await wait_settled(connection, members=2)
        async with connection.transaction():  # in one batch
            await append_events(connection, 30)
            await append_events(connection, 1, event_type=POISON)
            await append_events(connection, 30)
        poison = 31

        await failing.said("replica set test: projection failing is halted")
        status = (await run("status", "--database-url", database)).done()
        assert f"position {poison} in {retries + 1} attempts: RuntimeError: this event is poison at " in status
        await wait_handled(connection)
        await failing.stop()
        behind_it = {poison, poison + 1}  # of its key
        assert await handled_by(connection, "failing") == {"failing": set(range(1, 62)) - behind_it}
        attempts = [re.fullmatch(r"attempt at position (\d+), ([\d.]+) s", line) for line in failing.log]
        found = [(int(match[1]), float(match[2])) for match in attempts if match]
        assert [position for position, _ in found] == [poison] * (retries + 2), "once with others, then alone"
        pauses = [after - before for (_, before), (_, after) in itertools.pairwise(found[1:])]
        assert all(pause >= 0.05 * 2**n for n, pause in enumerate(pauses)), f"no backoff: {pauses}"

        # The other worker takes over what it knows; the other projection never stops.
        await wait_settled(connection, members=1)
        await append_events(connection, 30)
        assert "healthy" in await checked(connection)
        assert set(await owners(connection, "failing")) == {0}

        resumed = await run("resume", "--replica-set", "test", "--projection", "failing", "--database-url", database)
        assert resumed.done() == "failing was halted and runs again\n"
        async with WorkerProcess(database, "cured", projections=["failing", "handled"], env={CURED: "1"}):
            by_worker = await checked(connection, "failing", "handled")
        assert by_worker["cured"] == behind_it | set(range(62, 92))


async def test_recovery_after_restart(database: str) -> None:
    projection = "handled_at_gate"
    async with prepared(database) as connection, Load(database) as load:
        async with gate_closed(database) as at_gate:
            async with WorkerProcess(database, "a", projections=[projection]) as a:
                await a.ready()
                # Killed inside its first batch: nothing of it may stay.
                await wait_until(at_gate, what="a batch is in flight")
                a.send(signal.SIGKILL)
                assert await a.wait() == -signal.SIGKILL
            assert await handled_by(connection, projection) == {}
        for name in "bc":
            # Killed anywhere.
            async with WorkerProcess(database, name, projections=[projection]) as killed:
                await wait_all_handle(connection, name, projection)
                await load.more(100)
                killed.send(signal.SIGKILL)
                assert await killed.wait() == -signal.SIGKILL
        checkpoint = await saved(connection, projection)
        async with WorkerProcess(database, "d", projections=[projection]):
            await load.more(100)
            await load.stop()
            by_worker = await checked(connection, projection)
            await load.assert_in_log(connection)
        assert by_worker.keys() == {"b", "c", "d"}
        assert max(by_worker["c"]) <= checkpoint < max(by_worker["d"])
        assert await saved(connection, projection) >= max(by_worker["d"])


async def test_worker_count_changes_under_load(database: str) -> None:
    names = itertools.count(1)
    async with prepared(database) as connection, contextlib.AsyncExitStack() as stack, Load(database) as load:
        workers: list[WorkerProcess] = []

        async def change_to(count: int) -> None:
            leaving = [workers.pop(0) for _ in range(len(workers) - count)]
            joining = [WorkerProcess(database, f"w{next(names)}") for _ in range(count - len(workers))]
            for worker in leaving:
                worker.send(signal.SIGTERM)
            workers.extend([await stack.enter_async_context(worker) for worker in joining])
            assert [await worker.wait() for worker in leaving] == [0] * len(leaving)
            await wait_settled(connection, members=count)
            spread = loads(await owners(connection))
            assert len(spread) == count
            assert spread[-1] - spread[0] <= 1, spread
            await wait_all_handle(connection, [worker.name for worker in workers])

        for count in (1, 4, 2, 5):
            await change_to(count)
        await load.stop()
        by_worker = await checked(connection)
        await load.assert_in_log(connection)
        assert len(by_worker) == 7
        assert len(await generations(connection)) <= 1 + 3 + 2 + 3


async def test_two_workers_with_different_projections(database: str) -> None:
    both = ["handled", "handled_too"]
    async with prepared(database) as connection, Load(database) as load, WorkerProcess(database, "old") as old:
        await old.ready()
        async with WorkerProcess(database, "new", projections=both) as new:
            await new.ready()
            await wait_settled(connection, members=2)
            await wait_all_handle(connection, ["old", "new"])
            await wait_all_handle(connection, ["new"], "handled_too")
            assert loads(await owners(connection, "handled")) == [32, 32]
            assert set(await owners(connection, "handled_too")) == {await new.member()}
            assert partitions_of(await old.health()) == {"handled": 32}

            # The rest of the deployment.
            await old.stop()
            async with WorkerProcess(database, "newer", projections=both) as newer:
                await newer.ready()
                await wait_settled(connection, members=2)
                await wait_all_handle(connection, ["new", "newer"], "handled_too")
                assert loads(await owners(connection, "handled_too")) == [32, 32]
                await load.stop()
                by_worker = await checked(connection, *both)
        assert by_worker.keys() == {"old", "new", "newer"}
        assert (await handled_by(connection, "handled_too")).keys() == {"new", "newer"}


async def test_until_idle(database: str) -> None:
    async with prepared(database) as connection:
        async with WorkerProcess(database, "early", options=["--until-idle"]) as early:
            assert await early.wait() == 0, "nothing to do is no reason to stay"

        await append_events(connection, 500)
        async with WorkerProcess(database, "a", options=["--until-idle"]) as a:
            assert await a.wait() == 0
        assert await checked(connection) == {"a": set(range(1, 501))}
        unsaved = "SELECT count(*) FROM reactive_orch.checkpoints c WHERE c.position < 500"
        assert await connection.fetchval(unsaved) == 0, "the next run has nothing to read again"
        assert [row["reason"] for row in await generations(connection)] == ["join", "leave"] * 2
        await assert_nobody_left(connection)

        async with Load(database) as load:
            await load.more(100)
            due = set(load.committed)
            async with WorkerProcess(database, "b", options=["--until-idle"]) as b:
                assert await b.wait() == 0, "events that keep coming do not hold it"
            rows = await connection.fetch("SELECT key, version FROM public.handled")
            assert due <= {(row["key"], row["version"]) for row in rows}, "what was there at its start is handled"
        await assert_nobody_left(connection)


async def test_several_replica_sets_in_one_process(database: str) -> None:
    async with (
        prepared(database) as connection,
        Load(database) as load,
        Node(Config(database_url=database)) as node,
        anyio.create_task_group() as tasks,
    ):
        workers = [
            Worker(node, name, [recorder("handled", replica_set=name, worker="inside")])
            for name in ("orders", "billing")
        ]
        for worker in workers:
            tasks.start_soon(worker.run)
        for worker in workers:
            await wait_settled(connection, worker.replica_set)
            await wait_all_handle(connection, ["inside"], replica_set=worker.replica_set)
        assert await backends(connection, "membership") == 1

        # One leaves, the other stays, on the connection that they share.
        workers[0].stop()
        await wait_until(lambda: has_left(connection, "orders"), what="orders has no members")
        await wait_all_handle(connection, ["inside"], replica_set="billing")
        async with WorkerProcess(database, "outside", "orders") as outside:
            await outside.ready()
            await load.stop()
            for name in ("orders", "billing"):
                await wait_handled(connection, replica_set=name)
                await assert_each_once(connection, replica_set=name)
            await assert_in_order(connection)
            await outside.stop()
        assert [row["reason"] for row in await generations(connection, "billing")] == ["join"]
        workers[1].stop()
        await wait_until(lambda: has_left(connection, "billing"), what="billing has no members")
    async with connected(database) as connection:
        await assert_nobody_left(connection)


async def test_more_workers_in_one_process_than_connections_to_coordinate(database: str) -> None:
    """None holds a connection while it waits for a second one: together they would wait for ever."""
    count = 3 * COORDINATION_MAX
    async with (
        prepared(database) as connection,
        Node(Config(database_url=database)) as node,
        anyio.create_task_group() as tasks,
    ):
        workers = [Worker(node, "test", [recorder("handled", worker=f"w{n}")]) for n in range(count)]
        for worker in workers:
            tasks.start_soon(worker.run)

        async def all_serve() -> bool:
            return all(worker.state is WorkerState.SERVING for worker in workers)

        await wait_until(all_serve, what="all serve")
        await wait_settled(connection, members=count)
        assert {len(worker.partitions[Subscription("handled", OWN_LOG)]) for worker in workers} == {
            PARTITIONS // count,
            PARTITIONS // count + 1,
        }
        for worker in workers:
            worker.stop()


async def has_left(connection: Connection, replica_set: str) -> bool:
    return not await connection.fetchval(
        "SELECT count(*) FROM reactive_orch.members WHERE replica_set = $1", replica_set
    )


ACCIDENTS = {
    "DELETE FROM public.handled WHERE position = 7": "lost [7]",
    "INSERT INTO public.handled (replica_set, projection, worker, position, partition, key, version) "
    "SELECT replica_set, projection, 'b', position, partition, key, version "
    "FROM public.handled WHERE position = 7": "twice {7: ['a', 'b']}",
    "UPDATE public.handled SET position = 1000 WHERE position = 7": "ghosts [1000]",
    "UPDATE public.handled SET key = 'another' WHERE position = 7": "position=7 times=1",
    "UPDATE public.handled SET id = DEFAULT WHERE position = 7": "out of order",
    "UPDATE public.handled SET txid = 1 WHERE position = 17": "out of order",
}


async def test_the_checkers_notice(database: str) -> None:
    async with prepared(database) as connection:
        async with WorkerProcess(database, "a"):
            await append_events(connection, 20, keys=10)
            await checked(connection)
        for accident, noticed in ACCIDENTS.items():
            transaction = connection.transaction()
            await transaction.start()
            await connection.execute(accident)
            with pytest.raises(AssertionError, match=re.escape(noticed)):
                await checked_now(connection)
            await transaction.rollback()
        await checked_now(connection)


async def checked_now(connection: Connection) -> None:
    await assert_each_once(connection)
    await assert_in_order(connection)
