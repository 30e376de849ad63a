"""Limits of connections: of a role, of a database, of the server. What is refused is said, and nothing else fails."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import anyio
import asyncpg
import pytest

from integration_test.harness.checkers import assert_each_once, wait_handled
from integration_test.harness.cluster import Cluster, migrate
from integration_test.harness.command_line import UNREACHABLE, run
from integration_test.harness.connections import connected, prepared
from integration_test.harness.health import running, says
from integration_test.harness.in_process import pools
from integration_test.harness.load import append_events
from integration_test.harness.processes import WorkerProcess
from integration_test.harness.projections import handled
from integration_test.harness.roles import END_POOLED, limited
from integration_test.harness.waiting import wait_until
from reactive_orch.errors import Exhausted, TooManyConnections
from reactive_orch.postgres import pool as pooling
from reactive_orch.postgres.connection import marks_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from integration_test.harness.connections import Connection
    from reactive_orch.postgres.connection import AnyConnection

OF_ROLE = "the role has as many connections as its CONNECTION LIMIT allows: ALTER ROLE raises it"
OF_DATABASE = "the database has as many connections as its CONNECTION LIMIT allows: ALTER DATABASE raises it"
OF_SERVER = "the server has no connection left: see who has them (pg_stat_activity), or raise max_connections"
NEEDS = "a worker holds up to 17 (--connections), 3 while it idles"


@contextlib.asynccontextmanager
async def all_taken(url: str) -> AsyncIterator[list[Connection]]:
    """Take all connections that this URL gives."""
    taken: list[Connection] = []
    try:
        with contextlib.suppress(asyncpg.TooManyConnectionsError):
            while True:
                taken.append(await asyncpg.connect(url))
        yield taken
    finally:
        for each in taken:
            await each.close()


@pytest.mark.each_server
async def test_whoever_begins_says_whose_limit_it_is(database: str) -> None:
    worker = ["--replica-set", "test", "--http", "127.0.0.1:0"]
    async with connected(database) as db, limited(db, database, 2) as (name, url):
        async with all_taken(url) as taken:
            assert len(taken) == 2
            said = await asyncio.gather(*(run(*words, "--database-url", url) for words in (worker, ["status"])))
            assert [each.complaint(UNREACHABLE) for each in said] == [
                f"{OF_ROLE}; {NEEDS}",
                f"{OF_ROLE}; a command needs one",
            ]
            await taken.pop().close()
            await wait_until(lambda: _has(db, name, 1), what="one is free")
            assert "problems" in (await run("status", "--json", "--database-url", url)).done()
        await db.execute(f"ALTER ROLE {name} CONNECTION LIMIT -1")
        await db.execute(f"ALTER DATABASE {database.rpartition('/')[2]} CONNECTION LIMIT 3")
        async with all_taken(url):
            said_of_database = await run("status", "--database-url", url)
            assert said_of_database.complaint(UNREACHABLE) == f"{OF_DATABASE}; a command needs one"


async def test_a_server_that_is_full(cluster: Cluster) -> None:
    """Superusers have some in reserve, and status says how it stands to whoever gets the last one."""
    with Cluster(cluster.version) as small:
        url = small.create_database("full")
        migrate(url)
        async with connected(url) as db:
            await db.execute("CREATE ROLE plain LOGIN; GRANT pg_monitor TO plain; GRANT ALL ON SCHEMA public TO plain")
            await db.execute("GRANT USAGE ON SCHEMA reactive_orch TO plain")
            await db.execute("GRANT SELECT ON ALL TABLES IN SCHEMA reactive_orch TO plain")
            await db.execute("GRANT ALL ON ALL SEQUENCES IN SCHEMA reactive_orch TO plain")
            await db.execute("GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA reactive_orch TO plain")
            await db.execute("ALTER SYSTEM SET max_connections = 10")
        small.restart()
        plain = url.replace("postgres@", "plain@")
        async with all_taken(plain) as taken:
            assert len(taken) == 7
            refused = await run("status", "--database-url", plain)
            assert refused.complaint(UNREACHABLE) == f"{OF_SERVER}; a command needs one"
            assert SHORT.format(8) in (await run("status", "--database-url", url)).done()
            await taken.pop().close()
            await wait_until(lambda: _is_free(plain), what="one is free")
            assert SHORT.format(7) in (await run("status", "--database-url", plain)).done()


SHORT = "bad: {} of the 7 connections that the server takes are in use, besides 3 that are reserved"


async def _is_free(url: str) -> bool:
    with contextlib.suppress(asyncpg.TooManyConnectionsError):
        await (await asyncpg.connect(url)).close()
        return True
    return False


async def _has(db: Connection, name: str, number: int) -> bool:
    return bool(await db.fetchval("SELECT count(*) = $2 FROM pg_stat_activity a WHERE a.usename = $1", name, number))


async def test_while_more_are_refused_those_that_there_are_go_round(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pooling, "REFUSED_S", 0.05)
    done: list[int] = []

    async def borrow() -> None:
        async with ours.processing() as connection:
            done.append(await connection.fetchval("SELECT pg_backend_pid() FROM pg_sleep(0.05)"))

    async with connected(database) as db, limited(db, database, 2) as (_, url), pools(url) as ours:
        async with anyio.create_task_group() as tasks:
            for _ in range(8):
                tasks.start_soon(borrow)
        assert len(done) == 8
        assert len(set(done)) == 2
        assert ours.shortage.text == OF_ROLE
        assert ours.incarnation == 0
        async with all_taken(url), ours.processing(), ours.processing():
            with pytest.raises(TooManyConnections, match="CONNECTION LIMIT"):
                await ours.coordination().__aenter__()


async def test_who_waits_is_served_first_come_first_served(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also who was refused another one before."""
    monkeypatch.setattr(pooling, "REFUSED_S", 60.0)
    served = list[int]()

    async def borrow(number: int) -> None:
        async with ours.processing():
            served.append(number)

    async def all_wait() -> bool:
        return len(ours.pools["work"]._waiting) == 6  # noqa: SLF001 - nobody else knows it

    async with connected(database) as db, limited(db, database, 1) as (_, url), pools(url) as ours:
        async with anyio.create_task_group() as tasks, ours.processing():
            for number in range(6):
                tasks.start_soon(borrow, number)
            await wait_until(all_wait, what="they wait")
            assert ours.shortage.text == OF_ROLE
        assert served == [*range(6)]


async def test_an_event_gets_another_connection_in_place_of_one_on_which_it_has_failed(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever holds one does not wait for another: nobody else could give it back."""
    monkeypatch.setattr(pooling, "REFUSED_S", 60.0)

    async def fails(connection: AnyConnection) -> int:
        marks_of(connection).failed_at.add(7)
        return int(await connection.fetchval("SELECT pg_backend_pid()"))

    async with connected(database) as db, limited(db, database, 2) as (_, url), pools(url) as ours:
        async with ours.processing() as one, ours.processing() as other:
            failed_on = {await fails(one), await fails(other)}
        with anyio.fail_after(10):
            async with ours.processing(position=7) as another:
                assert await another.fetchval("SELECT pg_backend_pid()") not in failed_on
        assert ours.shortage.text == OF_ROLE
        assert ours.incarnation == 0


async def test_whoever_holds_one_is_refused_when_the_others_are_in_use(database: str) -> None:
    async with pools(database) as ours, contextlib.AsyncExitStack() as stack:
        for _ in range(ours.pools["work"].most):
            await stack.enter_async_context(ours.processing())
        with pytest.raises(Exhausted):
            await ours.pools["work"].take(holds_some=True)


async def test_two_workers_share_what_a_role_may_have(database: str, cluster: Cluster) -> None:
    limit = 9  # eight is what two need to begin: 3 of their own, and one to coordinate
    options = ("--connections", "10", "--heartbeat", "0.5", "--stale-after", "5")
    names = ("handled", "handled_too", "handled_slowly")
    async with (
        prepared(database) as db,
        limited(db, database, limit) as (name, url),
        WorkerProcess(url, "one", projections=names, options=options) as one,
        WorkerProcess(url, "two", projections=names, options=options) as two,
    ):

        async def refused() -> bool:
            await append_events(db, 10)
            return f'too many connections for role "{name}"' in cluster.log.read_text()

        await one.ready()
        await two.ready()
        await append_events(db, 100)
        await wait_until(refused)
        for each in names:
            await wait_handled(db, each)
        workers = await db.fetch("SELECT DISTINCT h.worker FROM public.handled h")
        assert {row["worker"] for row in workers} == {"one", "two"}
        for each in names:
            await assert_each_once(db, each)
        assert await db.fetchval("SELECT count(*) FROM pg_stat_activity a WHERE a.usename = $1", name) <= limit
        await one.stop()
        await two.stop()


async def test_health_tells_of_it_and_recovers_by_itself(database: str) -> None:
    async with prepared(database) as db, limited(db, database, -1) as (name, url), running(url, handled) as (_, worker):
        await append_events(db, 10)
        await wait_handled(db)
        await db.execute(f"ALTER ROLE {name} CONNECTION LIMIT 2")
        await db.execute(END_POOLED, name)
        await append_events(db, 10)
        await wait_until(says(worker, "live ready well", f"a connection was refused: {OF_ROLE}"), what="it says so")
        await db.execute(f"ALTER ROLE {name} CONNECTION LIMIT -1")
        await wait_handled(db)
        await wait_until(says(worker, "live ready well"), what="it serves")
