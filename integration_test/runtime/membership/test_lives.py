"""How workers live through outages, and how they end: nobody is hurt by how another one lives or ends."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import anyio
import pytest

from integration_test.chaos import scenarios
from integration_test.harness.arena import database as made
from integration_test.harness.checkers import (
    assert_each_once,
    generations,
    handled_by,
    owners,
    wait_handled,
    wait_settled,
)
from integration_test.harness.connections import connected, prepared
from integration_test.harness.in_process import serving
from integration_test.harness.load import append_events, gate_closed
from integration_test.harness.projections import GATE, record, recorder
from integration_test.harness.proxy import Proxy
from integration_test.harness.waiting import wait_until
from reactive_orch import Config, ConfigError, Event, Filter, Node, Projection, Unavailable, Worker, projection
from reactive_orch.model import OWN_LOG, Subscription, WorkerState
from reactive_orch.postgres import checkpoints, pool, rewinds
from reactive_orch.postgres import database as connecting_to
from reactive_orch.runtime import attachments
from reactive_orch.runtime.backoff import Backoff
from reactive_orch.runtime.membership import leaving, shutdown, watch
from reactive_orch.runtime.membership.turns import Membership

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from datetime import datetime

    from integration_test.harness.cluster import Cluster
    from integration_test.harness.connections import Connection
    from reactive_orch.model import MemberId

PARTITIONS = 64


def is_true(question: Callable[[], bool]) -> Callable[[], Awaitable[bool]]:
    async def asked() -> bool:
        return question()

    return asked


def serves(worker: Worker) -> Callable[[], Awaitable[bool]]:
    return is_true(lambda: worker.state is WorkerState.SERVING)


async def members(connection: Connection) -> list[int]:
    rows = await connection.fetch("SELECT id FROM reactive_orch.members ORDER BY id")
    return [row["id"] for row in rows]


def at_gate(worker: str, name: str = "handled", gate: int = GATE) -> Projection:
    @projection(name)
    async def waits(event: Event, tx: Any) -> None:
        await record(tx, name, event, worker=worker)
        await tx.execute("SELECT pg_advisory_xact_lock_shared($1)", gate)

    return waits


@contextlib.asynccontextmanager
async def allowing_no_connections(cluster: Cluster, database: str) -> AsyncIterator[Connection]:
    name = database.rpartition("/")[2]
    async with connected(cluster.url()) as operator:
        await operator.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        try:
            yield operator
        finally:
            await operator.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")


async def test_a_common_outage_costs_no_generation(cluster: Cluster) -> None:
    with made(cluster, "chaos_template"):
        assert await scenarios.play(cluster, "chaos_template", "common_outage") == []


async def test_who_comes_new_after_a_common_outage_expels_nobody(cluster: Cluster) -> None:
    with made(cluster, "chaos_template"):
        assert await scenarios.play(cluster, "chaos_template", "newcomer_after_an_outage") == []


async def test_when_the_database_is_back_nobody_sits_out_a_pause(
    cluster: Cluster, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pauses grow while it is away; here they outlast the test."""
    next_s = Backoff.next_s
    monkeypatch.setattr(Backoff, "next_s", lambda own: 600.0 if own._most_s == 5.0 else next_s(own))  # noqa: SLF001
    async with prepared(database) as connection, serving(database, recorder("handled")) as worker:
        await append_events(connection, 50)
        await wait_handled(connection)
        async with allowing_no_connections(cluster, database):
            await connection.execute(_END_WORKERS)
            await wait_until(is_true(lambda: worker.state is WorkerState.UNAVAILABLE))
        await append_events(connection, 50)
        await wait_handled(connection)
        await wait_until(serves(worker))
        await assert_each_once(connection)


_END_WORKERS = """
SELECT pg_terminate_backend(a.pid) FROM pg_stat_activity a
WHERE a.datname = current_database() AND a.application_name LIKE 'reactive_orch:%'
"""


async def test_who_ends_in_an_outage_leaves_when_it_is_over(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutdown, "LEAVE_TIMEOUT_S", 1.0)
    monkeypatch.setattr(connecting_to, "CONNECT_TIMEOUT_S", 1.0)  # nobody answers: each attempt would last five
    turns, turn = [0], Membership._turn  # noqa: SLF001 - how often it tries

    async def counted(self: Membership, source: str) -> bool:
        turns[0] += 1
        return await turn(self, source)

    monkeypatch.setattr(Membership, "_turn", counted)
    async with prepared(database) as connection, Proxy(database) as proxy:
        await append_events(connection, 100)
        config = Config(database_url=proxy.url(), heartbeat_s=0.5, stale_after_s=20)
        async with Node(config) as node, anyio.create_task_group() as tasks:
            first = Worker(node, "test", [recorder("handled", worker="first")])
            tasks.start_soon(first.run)
            await wait_until(serves(first))
            await wait_handled(connection)
            proxy.hold()
            proxy.cut()
            await wait_until(is_true(lambda: first.state is WorkerState.UNAVAILABLE))
            turns[0] = 0
            first.stop()
            await wait_until(is_true(lambda: first.state is WorkerState.STOPPED))
            assert turns[0] < 20, "it pauses between its attempts"

            second = Worker(node, "test", [recorder("handled", worker="second")])
            tasks.start_soon(second.run)
            proxy.accept()
            await wait_until(serves(second))
            await append_events(connection, 100)
            await wait_handled(connection)
            await wait_until(is_true(lambda: len(second.partitions[Subscription("handled", OWN_LOG)]) == PARTITIONS))
            assert await members(connection) == [second.member]
            reasons = {row["reason"] for row in await generations(connection)}
            assert reasons <= {"join", "leave"}, "its process was not taken for dead"
            await assert_each_once(connection)
            second.stop()


async def test_members_leave_each_by_itself(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One whose replica set somebody has locked holds up no other, nor is one that has left meanwhile left again."""
    monkeypatch.setattr(leaving, "LEAVE_TIMEOUT_S", 0.2)
    sets = ("one", "two", "three")
    async with contextlib.AsyncExitStack() as stack:
        connection = await stack.enter_async_context(prepared(database))
        node = await stack.enter_async_context(Node(Config(database_url=database)))
        tasks = await stack.enter_async_context(anyio.create_task_group())
        workers = {name: Worker(node, name, [recorder("handled", worker=name)]) for name in sets}
        scopes = {name: anyio.CancelScope() for name in sets}
        locks = {name: await stack.enter_async_context(connected(database)) for name in sets}
        seen_off: list[MemberId | None] = []
        see_off = node.departures._see_off  # noqa: SLF001 - in which order it tries

        async def noted(member: MemberId) -> None:
            seen_off.append(member)
            await see_off(member)

        monkeypatch.setattr(node.departures, "_see_off", noted)

        async def run(name: str) -> None:
            with scopes[name]:
                await workers[name].run()

        for name in sets:
            tasks.start_soon(run, name)
        await wait_until(is_true(lambda: all(worker.state is WorkerState.SERVING for worker in workers.values())))
        one, two, three = (workers[name].member for name in sets)

        async def lock(name: str) -> None:
            await locks[name].execute(
                f"BEGIN; SELECT FROM reactive_orch.members WHERE replica_set = '{name}' FOR UPDATE"
            )

        async def end(name: str) -> None:
            await lock(name)
            scopes[name].cancel()

        async def left(member: int | None) -> bool:
            return member not in await members(connection)

        await end("one")
        await end("two")
        await wait_until(is_true(lambda: workers["two"].state is WorkerState.STOPPED))
        await locks["two"].execute("ROLLBACK")
        await wait_until(lambda: left(two), what="the second leaves, though the first cannot")

        monkeypatch.setattr(leaving, "LEAVE_TIMEOUT_S", 30)
        await end("three")
        await wait_until(is_true(lambda: three in seen_off))
        tried = seen_off.count(one)
        await wait_until(is_true(lambda: seen_off.count(one) > tried), what="a round with both has begun")
        await locks["three"].execute("ROLLBACK")
        await wait_until(lambda: left(three))
        await locks["one"].execute("ROLLBACK")
        await wait_until(lambda: left(one))
        await wait_until(is_true(lambda: not node.departures._due))  # noqa: SLF001


async def test_a_member_whose_row_is_locked_holds_up_no_heartbeat_of_others(database: str) -> None:
    config = Config(database_url=database, heartbeat_s=0.2)
    async with (
        prepared(database) as connection,
        Node(config) as node,
        anyio.create_task_group() as tasks,
        connected(database) as somebody,
    ):
        workers = [Worker(node, name, [recorder("handled", worker=name)]) for name in ("one", "two")]
        for worker in workers:
            tasks.start_soon(worker.run)
        await wait_until(is_true(lambda: all(worker.state is WorkerState.SERVING for worker in workers)))
        async with somebody.transaction():
            await somebody.execute("SELECT FROM reactive_orch.members WHERE replica_set = 'one' FOR UPDATE")
            for _ in range(3):
                await wait_until(functools.partial(_beats_after, connection, await _now(connection)))
        for worker in workers:
            worker.stop()


async def test_a_member_whose_row_is_locked_comes_back(database: str) -> None:
    """Its connection is recorded as soon as the row is free."""
    backend = "SELECT backend_pid FROM reactive_orch.members"
    async with (
        prepared(database) as connection,
        Node(Config(database_url=database, heartbeat_s=0.2)) as node,
        anyio.create_task_group() as tasks,
        connected(database) as somebody,
    ):
        worker = Worker(node, "test", [recorder("handled")])
        tasks.start_soon(worker.run)
        await wait_until(serves(worker))
        lost, since = await connection.fetchval(backend), node.session.since

        async def is_recorded() -> bool:
            return bool(await connection.fetchval(backend) != lost)

        async with somebody.transaction():
            await somebody.execute("SELECT FROM reactive_orch.members FOR UPDATE")
            await connection.execute("SELECT pg_terminate_backend($1)", lost)
            await wait_until(is_true(lambda: node.session.since not in {None, since}), what="notifications arrive")
            assert not await is_recorded()
        await wait_until(is_recorded, what="its connection is recorded")
        assert await connection.fetchval("SELECT lock_held FROM reactive_orch.member_status")
        assert await members(connection) == [worker.member]
        worker.stop()


async def _now(connection: Connection) -> datetime:
    return cast("datetime", await connection.fetchval("SELECT clock_timestamp()"))


async def _beats_after(connection: Connection, moment: datetime) -> bool:
    newer = "SELECT heartbeat_at > $1 FROM reactive_orch.members WHERE replica_set = 'two'"
    return bool(await connection.fetchval(newer, moment))


async def test_the_watch_comes_back_at_once_however_often_it_was_lost(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []

    class Recorded(Backoff):
        def next_s(self) -> float:
            pause_s = super().next_s()
            pauses.append(pause_s)
            return pause_s

    config = Config(database_url=database)
    async with (
        prepared(database) as connection,
        Node(config) as one,
        Node(config) as other,
        anyio.create_task_group() as tasks,
    ):
        workers = [Worker(node, "test", [recorder("handled")]) for node in (one, other)]
        monkeypatch.setattr(watch, "Backoff", Recorded)
        for worker in workers:
            tasks.start_soon(worker.run)
        await wait_settled(connection, members=2)
        for _ in range(5):
            before = len(pauses)
            await wait_until(functools.partial(connection.fetchval, _END_WATCHING, f"reactive_orch:watch:{one.label}"))
            await wait_until(functools.partial(_longer, pauses, before))
        assert max(pauses) < 0.1, "nothing of earlier losses is held against the present one"
        for worker in workers:
            worker.stop()


async def _longer(values: list[float], than: int) -> bool:
    return len(values) > than


_END_WATCHING = """
SELECT pg_terminate_backend(a.pid) FROM pg_stat_activity a
WHERE a.datname = current_database() AND a.application_name = $1 AND a.query LIKE '%await_death%'
  AND a.state_change > a.backend_start + interval '300 milliseconds' -- it has been answered once
"""


async def test_until_idle_counts_from_the_start_of_the_run(database: str) -> None:
    async with prepared(database) as connection, Node(Config(database_url=database, batch_events=10)) as node:
        await wait_until(is_true(lambda: node.logs[OWN_LOG].settled is not None))
        await append_events(connection, 300)
        await Worker(node, "test", [recorder("handled", worker="only")], until_idle=True).run()
        await assert_each_once(connection)


async def test_a_worker_runs_once(database: str) -> None:
    async with prepared(database), Node(Config(database_url=database)) as node:
        worker = Worker(node, "test", [recorder("handled")], until_idle=True)
        await worker.run()
        with pytest.raises(ConfigError, match="runs once"):
            await worker.run()


async def test_a_worker_runs_on_a_node_that_is_entered(database: str) -> None:
    node = Node(Config(database_url=database))
    worker = Worker(node, "test", [recorder("handled")], until_idle=True)
    async with prepared(database) as connection:
        await append_events(connection, 10)
        for _ in ("before", "after"):
            with pytest.raises(ConfigError, match="a node that has been entered"):
                await worker.run()
            async with node:
                pass
        async with node:
            await worker.run()
        await assert_each_once(connection)


async def test_a_worker_ends_with_its_node(database: str) -> None:
    async with prepared(database) as connection:
        async with asyncio.timeout(20):
            async with Node(Config(database_url=database)) as node:
                worker = Worker(node, "test", [recorder("handled")])
                task = asyncio.create_task(worker.run())
                await wait_until(serves(worker))
            assert task.done(), "it has left before the connections were closed"
            with pytest.raises(ConfigError, match="its node was left while this worker ran"):
                await task
        assert worker.state is WorkerState.STOPPED
        assert await members(connection) == []


async def test_a_deaf_handler_holds_up_no_node_that_is_left(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attachments, "END_TIMEOUT_S", 0.2)
    monkeypatch.setattr(pool, "CLEANUP_TIMEOUT_S", 0.2)
    entered, release = anyio.Event(), anyio.Event()

    @projection("handled")
    async def deaf(_event: Event, _tx: Any) -> None:
        with anyio.CancelScope(shield=True):
            entered.set()
            await release.wait()

    async with prepared(database) as connection, asyncio.timeout(20):
        async with Node(Config(database_url=database)) as node:
            task = asyncio.create_task(Worker(node, "test", [deaf]).run())
            await append_events(connection, 1)
            await entered.wait()
        assert not task.done()
        release.set()
        with pytest.raises(ConfigError, match="its node was left"):
            await task


async def test_what_a_block_raises_comes_out_of_its_node_as_it_is(database: str) -> None:
    async with prepared(database):
        with pytest.raises(ConfigError, match="entered already"):
            async with Node(Config(database_url=database)) as node, node:
                pass
        error = ConfigError("what its user raises")
        with pytest.raises(ConfigError) as caught:
            async with Node(Config(database_url=database)):
                raise error
        assert caught.value is error


async def test_stop_before_run_and_twice(database: str) -> None:
    async with prepared(database), Node(Config(database_url=database)) as node, asyncio.timeout(20):
        worker = Worker(node, "test", [recorder("handled")])
        worker.stop()
        worker.stop()
        await worker.run()
        assert worker.state is WorkerState.STOPPED
        worker.stop()


async def test_a_moment_without_the_database_ends_no_handler(
    cluster: Cluster, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stop that waits for a handler goes on waiting when a connection is lost, however long ago it was asked for."""
    monkeypatch.setattr(shutdown, "LEAVE_TIMEOUT_S", 2.0)
    config = Config(database_url=database, heartbeat_s=0.5, stale_after_s=20)
    async with prepared(database) as connection, gate_closed(database) as waiting:
        async with connected(database) as guard, Node(config) as node, anyio.create_task_group() as tasks:
            worker = Worker(node, "test", [at_gate("only")])
            tasks.start_soon(worker.run)
            await wait_until(serves(worker))
            await append_events(connection, 1)
            await wait_until(waiting)
            worker.stop()
            await asyncio.sleep(2.1)  # as a slow handler does, past the time that leaving may take
            async with allowing_no_connections(cluster, database) as operator:
                await operator.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE ANY ($1)",
                    [f"reactive_orch:{kind}:{node.label}%" for kind in ("membership", "coordination")],
                )
                await wait_until(is_true(lambda: worker.state is WorkerState.UNAVAILABLE))
            await wait_until(is_true(lambda: worker.state is WorkerState.STOPPING))
            assert await waiting() == 1, "the handler goes on"
            await guard.execute("SELECT pg_advisory_unlock_all()")
            await guard.execute(
                "SELECT pg_terminate_backend(l.pid) FROM pg_locks l WHERE l.locktype = 'advisory' AND l.granted "
                "AND l.objid = $1::integer::oid AND l.objsubid = 1 AND l.mode = 'ExclusiveLock'",
                GATE,
            )
            await wait_until(is_true(lambda: worker.state is WorkerState.STOPPED))
        await assert_each_once(connection)
        assert await members(connection) == []


async def test_a_cancelled_worker_leaves_beside_a_handler_that_goes_on(database: str) -> None:
    entered, release, ended = anyio.Event(), anyio.Event(), anyio.Event()

    @projection("handled")
    async def deaf(event: Event, tx: Any) -> None:
        with anyio.CancelScope(shield=True):
            await record(tx, "handled", event, worker="deaf")
            entered.set()
            await release.wait()
        ended.set()

    config = Config(database_url=database)
    async with prepared(database) as connection, Node(config) as one, Node(config) as other:
        async with anyio.create_task_group() as tasks:
            worker = Worker(one, "test", [deaf])
            scope = anyio.CancelScope()

            async def cancellable() -> None:
                with scope:
                    await worker.run()

            tasks.start_soon(cancellable)
            await wait_until(serves(worker))
            await append_events(connection, 1)
            await entered.wait()
            scope.cancel()
            successor = Worker(other, "test", [recorder("handled", worker="successor")])
            tasks.start_soon(successor.run)
            await wait_handled(connection)
            assert await handled_by(connection) == {"successor": {1}}
            assert await members(connection) == [successor.member]
            assert not ended.is_set(), "its handler has not heard of it yet"
            release.set()
            successor.stop()
        await assert_each_once(connection)


async def test_a_node_may_be_entered_again_after_a_failure(cluster: Cluster, database: str) -> None:
    async with prepared(database) as connection:
        await append_events(connection, 10)
        node = Node(Config(database_url=database))
        name = database.rpartition("/")[2]
        async with connected(cluster.url()) as operator:
            await operator.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
            with pytest.raises(Unavailable):
                async with node:
                    pass
            await operator.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
        labels = set()
        for _ in range(2):
            async with node:
                labels.add(node.label)
                with pytest.raises(ConfigError, match="entered already"):
                    await node.__aenter__()
                await Worker(node, "test", [recorder("handled", worker="only")], until_idle=True).run()
        assert len(labels) == 2, "what is left of one entry is not taken for the other's"
        await assert_each_once(connection)


async def test_a_node_is_not_entered_while_it_is_being_entered_or_left(database: str) -> None:
    node = Node(Config(database_url=database))
    begun, end, leaving = (asyncio.Event() for _ in range(3))

    async def enter() -> None:
        async with node:
            begun.set()
            await end.wait()
            leaving.set()

    first = asyncio.create_task(enter())
    await asyncio.sleep(0)
    with pytest.raises(ConfigError, match="entered already"):
        await enter()
    await begun.wait()
    end.set()
    await leaving.wait()
    assert (node.entered, first.done()) == (False, False)
    with pytest.raises(ConfigError, match="entered already"):
        await enter()
    await first
    await enter()


def test_a_node_and_its_workers_may_be_made_before_any_loop(database: str) -> None:
    node = Node(Config(database_url=database))

    async def serve(worker: Worker) -> None:
        async with node:
            await worker.run()

    async def prepare() -> None:
        async with prepared(database) as connection:
            await append_events(connection, 10)

    asyncio.run(prepare())
    for _ in range(2):  # each in a loop of its own
        asyncio.run(serve(Worker(node, "test", [recorder("handled", worker="only")], until_idle=True)))

    async def check() -> None:
        async with connected(database) as connection:
            await assert_each_once(connection)

    asyncio.run(check())


async def test_a_refused_projection_is_given_up_even_if_the_first_attempt_fails(database: str) -> None:
    projections = [recorder(name, worker="old") for name in ("handled", "changed")]
    narrowed = replace(recorder("changed", worker="new"), filter=Filter(aggregate_types=("Key",)))
    config = Config(database_url=database)
    async with (
        prepared(database) as connection,
        connected(database) as guard,
        Node(config) as one,
        Node(config) as other,
        anyio.create_task_group() as tasks,
    ):
        old = Worker(one, "test", projections)
        tasks.start_soon(old.run)
        await wait_until(serves(old))
        await guard.execute(
            "SELECT reactive_orch.register_projections('test', '{changed}', '{events}', $1)", [_text(narrowed)]
        )
        async with guard.transaction():
            await guard.execute("SELECT FROM reactive_orch.members FOR UPDATE")
            await rewinds.rewind(connection, "test", Subscription("changed", OWN_LOG), None)
            ended = functools.partial(connection.fetchval, _END_GIVING_UP)
            await wait_until(ended, what="the statement that gives it up is cut")
        tasks.start_soon(Worker(other, "test", [narrowed]).run)
        await append_events(connection, 100)
        for name in ("handled", "changed"):
            await wait_handled(connection, name)
        await wait_settled(connection, members=2)
        assert old.member not in await owners(connection, "changed")
        assert set(await handled_by(connection, "changed")) == {"new"}
        tasks.cancel_scope.cancel()


async def test_a_take_over_waits_for_no_other_projection(database: str) -> None:
    """Beside many rows that are held for long, those that become free are taken at once."""
    slow, quick = [f"slow{n}" for n in range(30)], [f"quick{n}" for n in range(6)]
    config = Config(database_url=database, connections_max=47, batch_events=10)
    async with (
        prepared(database) as connection,
        connected(database) as second_gate,
        gate_closed(database) as waiting,
        Node(config) as one,
        Node(config) as other,
        anyio.create_task_group() as tasks,
    ):
        await second_gate.execute("SELECT pg_advisory_lock($1)", GATE + 1)
        projections = [*(at_gate("any", name) for name in slow), *(at_gate("any", name, GATE + 1) for name in quick)]
        old, new = Worker(one, "test", projections), Worker(other, "test", projections)
        tasks.start_soon(old.run)
        await wait_until(serves(old))
        await append_events(connection, 50)
        await wait_until(is_true(lambda: len(old.busy) == len(projections)))
        await wait_until(waiting)
        tasks.start_soon(new.run)
        await wait_until(is_true(lambda: new.state is WorkerState.REBALANCING))
        await asyncio.sleep(1.0)  # all that is free has been taken, all the others are awaited
        assert all(len(new.partitions[Subscription(name, OWN_LOG)]) < PARTITIONS // 2 for name in quick)
        await second_gate.execute("SELECT pg_advisory_unlock_all()")
        free: dict[str, float] = {}
        held: dict[str, float] = {}
        looks = [anyio.current_time()]

        async def all_taken() -> bool:
            looks.append(now := anyio.current_time())
            for name in quick:
                if len(old.partitions[Subscription(name, OWN_LOG)]) == PARTITIONS // 2:
                    free.setdefault(name, now)
                if len(new.partitions[Subscription(name, OWN_LOG)]) == PARTITIONS // 2:
                    held.setdefault(name, now)
            return len(held) == len(quick)

        await wait_until(all_taken)
        longest_look_s = max(later - earlier for earlier, later in itertools.pairwise(looks))
        taken_s = max(held[name] - free.get(name, held[name]) for name in quick)
        assert taken_s < 2.0 + 10 * longest_look_s, "in turn with the others, whatever the machine's load"
        tasks.cancel_scope.cancel()


_END_GIVING_UP = """
SELECT pg_terminate_backend(a.pid) FROM pg_stat_activity a
WHERE a.datname = current_database() AND a.wait_event_type = 'Lock' AND a.query LIKE '%give_up_projection%'
  AND a.pid <> pg_backend_pid()
"""


def _text(one: Projection) -> str:
    return checkpoints.filter_text(one.filter)


async def test_who_asks_to_leave_while_another_is_removed_is_a_member_until_its_turn(database: str) -> None:
    """The plan saw it active, with all partitions: the generation names it, and is not settled without it."""
    async with connected(database) as connection:
        await connection.execute("INSERT INTO reactive_orch.replica_sets VALUES ('test', 1)")
        await connection.execute(
            "INSERT INTO reactive_orch.members (id, replica_set, state, name, projections, logs, backend_pid, "
            "backend_start, stale_after) "
            "SELECT id, 'test', 'leaving', id::text, '{handled}', '{events}', 1, clock_timestamp(), '10 s' "
            "FROM unnest('{1, 2}'::integer[]) AS id"
        )
        owners = [2] * await connection.fetchval("SELECT partitions FROM reactive_orch.logs")
        await connection.fetch(
            "SELECT reactive_orch.change_generation("
            "'test', 1, 'leave', '{1}', NULL, '{}', '{1}', '{handled}', '{events}', $1, 0, 2, 'own', 0)",
            owners,
        )
        (written,) = await generations(connection)
    assert (written["members"], written["completed_at"]) == ([2], None)
