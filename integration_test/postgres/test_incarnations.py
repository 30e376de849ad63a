"""All connections of one incarnation lead to one server, wherever an address points meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from typing import TYPE_CHECKING, Any, NamedTuple

import anyio
import asyncpg
import pytest

from integration_test.chaos import planted
from integration_test.harness import projections
from integration_test.harness.checkers import assert_each_once, generations, wait_handled, wait_settled
from integration_test.harness.cluster import Cluster, Standby, migrate
from integration_test.harness.command_line import run_worker
from integration_test.harness.connections import connected, prepared
from integration_test.harness.in_process import pools
from integration_test.harness.load import append_events
from integration_test.harness.processes import WorkerProcess
from integration_test.harness.proxy import Proxy
from integration_test.harness.waiting import wait_until
from reactive_orch import Config, Node, Worker
from reactive_orch.errors import Superseded, Unavailable
from reactive_orch.incarnation import NEVER
from reactive_orch.model import WorkerState
from reactive_orch.postgres import connecting
from reactive_orch.postgres import database as databases
from reactive_orch.runtime.membership.adoptions import Adoptions

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from integration_test.harness.connections import Connection
    from reactive_orch.runtime.membership.adoption import Adoption

NAME = "moved"


class Pair(NamedTuple):
    """A primary that goes on living, and what was its standby."""

    old: str
    new: str

    @property
    def both(self) -> str:
        """The URL of both hosts, the old one first."""
        hosts = ",".join(url.split("@")[1].split("/")[0] for url in (self.old, self.new))
        return f"postgresql://postgres@{hosts}/{NAME}"


@pytest.fixture
def pair(cluster: Cluster) -> Iterator[Pair]:
    """The two servers before the promotion."""
    with Cluster(cluster.version) as primary:
        url = primary.create_database(NAME)
        migrate(url)
        with Standby(primary) as standby:
            yield Pair(url, standby.url(NAME))


async def promoted(pair: Pair) -> None:
    """Promote the standby when it has all that the primary has; the primary lives on."""
    async with connected(pair.old) as old, connected(pair.new) as new:
        end = await old.fetchval("SELECT pg_current_wal_lsn()")

        async def replayed() -> bool:
            return bool(await new.fetchval("SELECT pg_last_wal_replay_lsn() >= $1", end))

        await wait_until(replayed, what="the standby has it all")
        await new.fetchval("SELECT pg_promote()")


async def test_a_new_connection_that_leads_elsewhere_ends_the_others(pair: Pair) -> None:
    async with Proxy(pair.old) as proxy, pools(proxy.url()) as database:
        own = await database.connect("tail")
        async with database.processing():
            pass
        await promoted(pair)
        proxy.lead_to(pair.new)
        before = database.incarnation
        async with database.processing(before) as pooled:
            assert not await pooled.fetchval("SELECT pg_is_in_recovery()")
        moved = await database.connect("watch")
        assert database.incarnation > before
        assert own.is_closed()
        assert moved.marks.incarnation == database.incarnation
        with pytest.raises(Superseded, match="lost meanwhile"):
            async with database.processing(before):
                pass
        async with database.processing() as pooled:
            assert await pooled.fetchval("SELECT pg_walfile_name(pg_current_wal_lsn())") > "00000002"
        async with pools(pair.both) as others, others.coordination() as chosen:
            assert await chosen.fetchval("SELECT pg_walfile_name(pg_current_wal_lsn())") > "00000002", "promoted last"
        # The address goes back: the old primary is not taken for the new one, and nothing is lost by that.
        proxy.lead_to(pair.old)
        now = database.incarnation
        with pytest.raises(Unavailable, match="an old primary has answered"):
            await database.connect("tail")
        assert database.incarnation == now
        moved.terminate()


@contextlib.asynccontextmanager
async def moved(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Connection]:
    """Let a worker's address move to the new primary while its connections to the old one live; yields one there."""
    monkeypatch.setenv(projections.WORKER, "one")
    monkeypatch.setenv(projections.REPLICA_SET, "test")
    async with (
        prepared(pair.old) as old,
        Proxy(pair.old) as proxy,
        Node(Config(database_url=proxy.url())) as node,
        anyio.create_task_group() as tasks,
    ):
        worker = Worker(node, "test", [projections.handled])
        tasks.start_soon(worker.run)
        await append_events(old, 40)
        await wait_handled(old)
        await promoted(pair)
        proxy.lead_to(pair.new)
        for pool in node.database.pools.values():  # as if they had been idle: the next ones are new
            await pool.renew()
        async with connected(pair.new) as new, connected(pair.new) as slow:
            await _a_slow_and_a_quick_one(new, slow, old)
            yield new
        worker.stop()


async def test_an_address_that_moves_while_its_old_server_lives_loses_nothing(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with moved(pair, monkeypatch) as new:
        await wait_handled(new)
        await assert_each_once(new)
        assert not await new.fetchval(_BEYOND_HEAD)


async def test_without_the_proof_events_are_passed_over(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planted, "_put", monkeypatch.setattr)
    planted.plant("connections_are_not_asked_where_they_lead")
    async with moved(pair, monkeypatch) as new:

        async def beyond_head() -> bool:
            return bool(await new.fetchval(_BEYOND_HEAD))

        await wait_until(beyond_head, what="checkpoints of the new server stand at the old one's head")


_BEYOND_HEAD = """
SELECT max(c.position) > (SELECT max(e.global_position) FROM reactive_orch.events e) FROM reactive_orch.checkpoints c
"""


async def _a_slow_and_a_quick_one(new: Connection, slow: Connection, old: Connection) -> None:
    """Draw positions on the new server that are committed late, while the old one's head runs ahead of them."""
    transaction = slow.transaction()
    await transaction.start()
    await slow.execute(_APPEND, "slow", 20)
    await new.execute(_APPEND, "quick", 20)
    await old.execute(_APPEND, "old", 500)
    await asyncio.sleep(1.0)  # whoever passes over the slow ones does it in this time
    await transaction.commit()
    await new.execute(_APPEND, "last", 20)


_APPEND = """
INSERT INTO reactive_orch.events (aggregate_type, aggregate_id, aggregate_version, event_type)
SELECT 'Key', $1 || n, 1, 'Appended' FROM generate_series(1, $2) AS n
"""


async def test_an_adoption_of_a_past_incarnation_is_begun_again(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is met when the lanes have loaded anew before the worker has looked, and can be acknowledged no more."""
    begun: list[Adoption] = []
    begin = Adoptions.begin

    def noted(self: Adoptions, *args: Any, resumed: bool) -> Adoption:
        begun.append(begin(self, *args, resumed=resumed))
        return begun[-1]

    monkeypatch.setattr(Adoptions, "begin", noted)

    async def serves() -> bool:
        return worker.state is WorkerState.SERVING

    async with (
        prepared(database),
        Node(Config(database_url=database)) as node,
        anyio.create_task_group() as tasks,
    ):
        worker = Worker(node, "test", [projections.handled])
        tasks.start_soon(worker.run)
        await wait_until(serves, what="the worker serves")
        past, times = begun[-1], len(begun)
        past.done = past.resumed = False
        past.incarnation = NEVER

        async def begun_again() -> bool:
            return len(begun) > times

        worker.wake("test")
        await wait_until(begun_again, what="another adoption")
        await wait_until(serves, what="the worker serves again")
        worker.stop()


async def test_an_id_drawn_twice_is_not_shared(database: str) -> None:
    """A promoted standby that has lost the last ids gives them out again, while their members come over to it."""
    patient = ("--heartbeat", "10", "--stale-after", "60")
    async with prepared(database) as db, WorkerProcess(database, "one", options=patient) as one:
        await one.ready()
        member = await one.member()
        one.send(signal.SIGSTOP)
        await db.execute(_LOSE_TAIL)
        await db.fetchval("SELECT setval('reactive_orch.member_ids', $1, false)", member)
        async with WorkerProcess(database, "other", options=patient) as other:
            await other.ready()
            assert await other.member() == member
            one.send(signal.SIGCONT)
            await wait_settled(db, members=2)
            assert await one.member() != await other.member() == member
            await append_events(db, 50)
            await wait_handled(db)
            await assert_each_once(db)
            assert not any("removed" in line or "lost" in line for line in other.log), other.log
            numbers = [row["number"] for row in await generations(db)]
            assert numbers[-1] <= 3, "both have joined, and nobody has ended the other's session"
            await asyncio.gather(one.stop(), other.stop())


_LOSE_TAIL = """
DELETE FROM reactive_orch.members; DELETE FROM reactive_orch.assignments; DELETE FROM reactive_orch.generations;
UPDATE reactive_orch.replica_sets SET generation = 0;
SELECT pg_terminate_backend(a.pid) FROM pg_stat_activity a
WHERE a.application_name LIKE 'reactive_orch:%' AND a.datname = current_database()
"""


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port that accepts and never answers."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(64)
        yield listening.getsockname()[1]


async def test_a_silent_host_does_not_hide_the_primary(database: str, silent_port: int) -> None:
    host, name = database.split("@")[1].split("/")
    uri = f"postgresql://postgres@127.0.0.1:{silent_port},{host}/{name}"
    words = f"postgresql:///{name}?host=127.0.0.1,127.0.0.1&port={silent_port},{host.split(':')[1]}&user=postgres"
    for url in (uri, words):
        # In less than the time that the silent one has.
        async with pools(url) as several, asyncio.timeout(4), several.processing() as one, several.coordination():
            assert await one.fetchval("SELECT 1") == 1


async def test_a_standby_that_is_promoted_while_another_host_is_silent_is_found(
    pair: Pair, silent_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(databases, "CONNECT_TIMEOUT_S", 60.0)
    stands_by = asyncio.Event()
    original = connecting._open  # noqa: SLF001

    async def noted(*asked: Any) -> Any:
        try:
            return await original(*asked)
        except asyncpg.TargetServerAttributeNotMatched:
            stands_by.set()
            raise

    monkeypatch.setattr(connecting, "_open", noted)
    url = pair.new.replace("@", f"@127.0.0.1:{silent_port},")
    async with asyncio.timeout(30), pools(url) as several, asyncio.TaskGroup() as tasks:
        connected_to = tasks.create_task(several.connect("tail"))
        await stands_by.wait()
        await promoted(pair)
        (await connected_to).terminate()


async def test_a_proxy_that_leads_nowhere_is_named(unused_tcp_port: int) -> None:
    async def close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.close()

    async with await asyncio.start_server(close, "127.0.0.1", unused_tcp_port):
        said = await run_worker(url=f"postgresql://postgres@127.0.0.1:{unused_tcp_port}/nowhere")
    assert said.code == 3
    assert "the connection was closed before anybody answered (postgresql://" in said.err


async def test_of_hosts_that_fail_the_most_telling_is_reported(database: str, silent_port: int) -> None:
    host = database.split("@")[1].split("/", maxsplit=1)[0]
    url = f"postgresql://postgres@127.0.0.1:1,127.0.0.1:{silent_port},{host}/nowhere"
    async with pools(url) as several:
        with pytest.raises(Unavailable, match='"nowhere" does not exist') as raised:
            await several.connect("tail")
    assert isinstance(raised.value.__cause__, asyncpg.InvalidCatalogNameError)
