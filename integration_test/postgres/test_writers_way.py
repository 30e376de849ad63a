"""Nothing of ours stands in the writers' way: no append fails, waits or is refused for the bell, a hint."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import asyncpg
import pytest

from integration_test.harness.checkers import assert_each_once, wait_handled
from integration_test.harness.cluster import Cluster, Standby
from integration_test.harness.connections import connected, prepared
from integration_test.harness.processes import WorkerProcess
from integration_test.harness.waiting import wait_until
from reactive_orch.model import OWN_LOG
from reactive_orch.postgres import log, migrations
from reactive_orch.postgres.channels import EVENTS_CHANNEL

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from integration_test.harness.connections import Connection

pytestmark = pytest.mark.each_server

INSERT = (
    "INSERT INTO reactive_orch.events (aggregate_type, aggregate_id, aggregate_version, event_type) "
    "VALUES ('Key', gen_random_uuid()::text, 1, 'Written') RETURNING global_position"
)
ARM_S = 20.0
SOON_S = 5.0
"""For what waits for nobody, on a slow machine."""


@pytest.fixture
async def connection(database: str) -> AsyncIterator[Connection]:
    """A connection with the rights of the owner."""
    async with connected(database) as made:
        yield made


async def rings(url: str, writer: Connection) -> bool:
    """Append, and tell whether that rang; a bell of the listener's own ends the wait."""
    heard: list[str] = []
    async with connected(url) as ear:
        await ear.add_listener(EVENTS_CHANNEL, lambda *args: heard.append(str(args[3])))
        await writer.fetchval(INSERT)
        await writer.execute("SELECT pg_notify($1, 'last')", EVENTS_CHANNEL)
        await wait_until(lambda: _holds("last", heard))
    return heard == ["", "last"]


async def _holds(word: str, heard: list[str]) -> bool:
    return word in heard


DAMAGES = {
    "DROP SEQUENCE reactive_orch.bell": "the bell",
    "ALTER TABLE reactive_orch.events DISABLE TRIGGER ring": "the trigger of the event table",
    "ALTER TABLE reactive_orch.events ENABLE REPLICA TRIGGER ring": "the trigger of the event table",
    "DROP TRIGGER ring ON reactive_orch.events": "the trigger of the event table",
}
"""What somebody does, and what `migrate` mends of it."""
UNLOGGED = "ALTER SEQUENCE reactive_orch.bell SET UNLOGGED"
AS_IT_WAS = "DROP SEQUENCE reactive_orch.bell; CREATE UNLOGGED SEQUENCE reactive_orch.bell MINVALUE 0"


@pytest.mark.parametrize("damage", DAMAGES)
async def test_appends_go_on_whatever_is_wrong_with_the_bell_and_migrate_mends_it(
    database: str, connection: Connection, damage: str
) -> None:
    async with connected(database) as writer:
        assert await writer.fetchval(INSERT)
        await connection.execute(damage)
        assert await writer.fetchval(INSERT)
        await log.observe(writer, OWN_LOG, 0)
        await log.arm(writer, OWN_LOG, 0)
        assert await log.arm(writer, OWN_LOG, ARM_S), "whoever would sleep is told why nobody will ring"
        assert await writer.fetchval(INSERT)

        assert await migrations.migrate(connection) == [f"made anew: {DAMAGES[damage]}"]
        assert await migrations.migrate(connection) == []
        assert await log.arm(writer, OWN_LOG, ARM_S) is None
        assert await rings(database, writer)


async def test_a_bell_made_anew_keeps_the_rights_that_were_given_on_it(connection: Connection) -> None:
    await connection.execute(f"GRANT UPDATE ON SEQUENCE reactive_orch.bell TO pg_monitor, pg_read_all_data; {UNLOGGED}")
    rights = (
        "SELECT array_agg(a ORDER BY a::text)::text FROM pg_class c, unnest(c.relacl) AS a WHERE c.oid = $1::regclass"
    )
    before = await connection.fetchval(rights, "reactive_orch.bell")
    assert await migrations.migrate(connection) == ["made anew: the bell"]
    assert await connection.fetchval(rights, "reactive_orch.bell") == before


async def test_after_the_promotion_of_a_standby_that_was_there_at_migrate_appends_ring(cluster: Cluster) -> None:
    """Before its next restartpoint it has no readable page of what is not logged; an unlogged bell fails no append."""
    with Cluster(cluster.version) as primary, Standby(primary) as standby:
        for name in ("logged", "unlogged"):
            async with connected(primary.create_database(name)) as connection:
                await migrations.migrate(connection)
                if name == "unlogged":
                    await connection.execute(AS_IT_WAS)
                await connection.fetchval(INSERT)
                end = await connection.fetchval("SELECT pg_current_wal_lsn()")
        async with connected(standby.url()) as connection:
            replayed = "SELECT pg_last_wal_replay_lsn() >= $1"
            await wait_until(lambda: connection.fetchval(replayed, end), what="the standby has it all")
            await connection.fetchval("SELECT pg_promote()")
        async with connected(standby.url("logged")) as writer:
            assert await rings(standby.url("logged"), writer)
            assert await log.arm(writer, OWN_LOG, ARM_S) is None
            assert await migrations.migrate(writer) == []
        async with connected(standby.url("unlogged")) as writer:
            await writer.fetchval(INSERT)
            silence = await log.arm(writer, OWN_LOG, ARM_S)
            assert silence is None or "XX000" in silence, "unreadable, unless its page was written by chance"
            await log.observe(writer, OWN_LOG, 0)
            await writer.fetchval(INSERT)
            assert await migrations.migrate(writer) == ["made anew: the bell"]
            assert await rings(standby.url("unlogged"), writer)


async def test_a_bell_that_a_clock_set_back_has_left_armed_does_not_ring(database: str, connection: Connection) -> None:
    armed = "SELECT setval('reactive_orch.bell', (extract(epoch FROM clock_timestamp()) * 1000)::bigint + 3600000)"
    await connection.execute(armed)
    assert not await rings(database, connection)
    await log.arm(connection, OWN_LOG, ARM_S)
    assert await rings(database, connection)


async def test_arming_waits_for_no_standby(cluster: Cluster, database: str) -> None:
    async with connected(database) as connection, connected(cluster.url()) as superuser:
        await superuser.execute("ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
        await superuser.execute("SELECT pg_reload_conf()")
        try:
            await wait_until(lambda: connection.fetchval("SELECT current_setting('synchronous_standby_names') <> ''"))
            async with asyncio.timeout(SOON_S):
                await log.arm(connection, OWN_LOG, ARM_S)
                await log.arm(connection, OWN_LOG, 0)
                assert await connection.fetchval("SHOW synchronous_commit") == "on", "of that statement only"
        finally:
            await superuser.execute("ALTER SYSTEM RESET synchronous_standby_names")
            await superuser.execute("SELECT pg_reload_conf()")


async def test_migrate_waits_for_no_writer_and_no_writer_for_migrate(database: str, connection: Connection) -> None:
    async with connected(database) as writer, connected(database) as other, writer.transaction():
        await writer.fetchval(INSERT)
        async with asyncio.timeout(SOON_S), connection.transaction():
            assert await migrations.migrate(connection) == []
            await other.fetchval(INSERT)
            await writer.fetchval(INSERT)


async def test_a_mending_that_must_wait_for_a_writer_gives_way_to_the_others(
    database: str, connection: Connection
) -> None:
    await connection.execute("ALTER TABLE reactive_orch.events DISABLE TRIGGER ring")
    async with connected(database) as writer, connected(database) as other:
        holding = writer.transaction()
        await holding.start()
        await writer.fetchval(INSERT)
        mending = asyncio.create_task(migrations.migrate(connection))
        async with asyncio.timeout(SOON_S):
            await other.fetchval(INSERT)
        await holding.rollback()
        assert await mending == ["made anew: the trigger of the event table"]


async def test_a_serializable_writer_reads_nothing_that_others_could_conflict_with(
    database: str, connection: Connection
) -> None:
    async with connected(database) as writer, writer.transaction(isolation="serializable"):
        await writer.fetchval(INSERT)
        locks = await connection.fetch(
            "SELECT l.relation::regclass::text FROM pg_locks l WHERE l.mode = 'SIReadLock' AND l.pid = $1",
            writer.get_server_pid(),
        )
        assert locks == []
        await log.arm(connection, OWN_LOG, ARM_S)
        await writer.fetchval(INSERT)


FILL = "SELECT count(pg_notify('noise', repeat('x', 7000) || n)) FROM generate_series(1, 40) AS n"


@pytest.fixture
def crowded(cluster: Cluster) -> Iterator[Cluster]:
    """A server with the smallest queue of notifications; only from PostgreSQL 17 on it can be set."""
    if cluster.version != "18":
        pytest.skip("the queue of this version has 8 GB")
    with Cluster(cluster.version) as made:
        yield made


async def _fill(connection: Connection) -> None:
    """Notify until the queue takes no more."""
    with contextlib.suppress(asyncpg.ProgramLimitExceededError):
        while True:
            await connection.execute(FILL)


@pytest.mark.thorough
async def test_with_a_full_queue_appends_go_on_and_workers_poll_and_say_so(crowded: Cluster) -> None:
    url = crowded.create_database("crowded")
    async with connected(crowded.url()) as superuser:
        await superuser.execute("ALTER SYSTEM SET max_notify_queue_pages = 64")
    crowded.restart()
    async with connected(url) as connection:
        await migrations.migrate(connection)
    async with (
        prepared(url) as connection,
        connected(crowded.url()) as sleeper,
        connected(crowded.url()) as noise,
        WorkerProcess(url, "first") as first,
    ):
        await first.ready()
        sleeping = sleeper.transaction()
        await sleeper.execute("LISTEN noise")
        await sleeping.start()
        await sleeper.execute("SELECT 1")
        await _fill(noise)
        with pytest.raises(asyncpg.ProgramLimitExceededError):
            await connection.execute("SELECT pg_notify('noise', repeat('x', 7900)) FROM generate_series(1, 9)")
        for _ in range(20):
            await connection.fetchval(INSERT)
        async with WorkerProcess(url, "second") as second:
            await second.ready()
            await connection.fetchval(INSERT)
            await wait_handled(connection, "handled")
            await assert_each_once(connection, "handled")
            for worker in (first, second):
                await wait_until(lambda worker=worker: _says(worker, "writers do not ring"))  # type: ignore[misc]
                assert (await worker.health())["health"] == "degraded"
        await sleeping.rollback()
        await wait_until(lambda: _says(first, "writers ring again"))


async def _says(worker: WorkerProcess, words: str) -> bool:
    return any(words in line for line in worker.log)
