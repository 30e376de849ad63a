"""What a new connection tells of where it leads: where some of it is denied, and after a crash nobody has heard of."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest

from integration_test.harness.checkers import wait_handled
from integration_test.harness.cluster import Cluster
from integration_test.harness.command_line import UNREACHABLE, run, run_worker
from integration_test.harness.connections import connected, prepared
from integration_test.harness.in_process import pools
from integration_test.harness.load import append_events
from integration_test.harness.processes import WorkerProcess
from integration_test.harness.proxy import Proxy
from integration_test.harness.waiting import wait_until
from reactive_orch import Config, Node, Unavailable
from reactive_orch.errors import Superseded
from reactive_orch.postgres import connection as connections

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

DENIED = {
    "system": "FUNCTION pg_control_system()",
    "timeline": "FUNCTION pg_current_wal_lsn()",
    "recovered_at": "TABLE pg_stat_archiver",
}
"""What some managed servers let nobody ask."""


@pytest.fixture
async def tenant(cluster: Cluster, database: str) -> AsyncIterator[str]:
    """The database's URL for a role that is no superuser."""
    async with connected(cluster.url()) as operator:
        await operator.execute("CREATE ROLE tenant LOGIN")
        try:
            async with prepared(database) as owner:
                await owner.execute("GRANT USAGE ON SCHEMA reactive_orch TO tenant")
                for schema in ("reactive_orch", "public"):
                    await owner.execute(f"GRANT ALL ON ALL TABLES IN SCHEMA {schema} TO tenant")
                    await owner.execute(f"GRANT ALL ON ALL SEQUENCES IN SCHEMA {schema} TO tenant")
                    await owner.execute(f"GRANT ALL ON ALL FUNCTIONS IN SCHEMA {schema} TO tenant")
            yield database.replace("postgres@", "tenant@")
            async with connected(database) as owner:
                await owner.execute("DROP OWNED BY tenant")
        finally:
            await operator.execute("DROP ROLE tenant")


async def _deny(database: str, *what: str) -> None:
    async with connected(database) as owner:
        for each in what:
            await owner.execute(f"REVOKE ALL ON {each} FROM PUBLIC")


@pytest.mark.parametrize("denied", [*DENIED, ""])
@pytest.mark.each_server
async def test_what_may_not_be_asked_is_left_out(database: str, tenant: str, denied: str) -> None:
    await _deny(database, *(what for name, what in DENIED.items() if name == denied))
    async with pools(tenant) as own:
        connection = await own.connect("tail")
        server = connection.marks.server
        assert {name for name in DENIED if getattr(server, name) is None} == {denied} - {""}
        connection.terminate()
        before = own.incarnation
        async with own.processing(before), own.coordination(before):
            assert own.incarnation == before, "they lead to the same"


@pytest.mark.each_server
async def test_a_worker_runs_where_nothing_of_the_server_may_be_asked(database: str, tenant: str) -> None:
    await _deny(database, *DENIED.values(), "FUNCTION pg_control_checkpoint()", "FUNCTION pg_walfile_name(pg_lsn)")
    async with connected(database) as owner, WorkerProcess(tenant, "w") as worker:
        await worker.ready()
        await append_events(owner, 50)
        await wait_handled(owner)
        await owner.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'tenant'")
        await append_events(owner, 50)
        await wait_handled(owner)
        await worker.stop()


@pytest.mark.each_server
async def test_a_crash_is_noticed_by_the_next_connection(cluster: Cluster) -> None:
    """The postmaster stays when a backend is killed, and something on the way may keep the ends to itself."""
    with Cluster(cluster.version) as own:
        url = own.create_database("crashed")
        async with Proxy(url) as proxy, pools(proxy.url()) as database:
            tail = await database.connect("tail")
            before = database.incarnation
            proxy.silence("tail")
            async with connected(url) as victim:
                os.kill(victim.get_server_pid(), signal.SIGKILL)

                async def gone() -> bool:
                    return victim.is_closed()

                await wait_until(gone, what="the server resets")

            async def recovered() -> bool:
                try:
                    async with connected(url):
                        return True
                except asyncpg.PostgresError:
                    return False

            await wait_until(recovered, what="the server is back")
            assert (database.incarnation, tail.is_closed()) == (before, False), "nobody knows yet"
            with pytest.raises(Superseded):
                async with database.processing():
                    pass
            assert database.incarnation > before
            assert tail.is_closed()


async def test_a_worker_that_starts_while_the_log_is_locked_says_so(database: str) -> None:
    async with connected(database) as locker, locker.transaction():
        await locker.execute("LOCK TABLE reactive_orch.events IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(Unavailable, match="somebody has locked it"):
            await Node(Config(database_url=database)).__aenter__()
        said = await run_worker("--projection", "integration_test.harness.projections:handled", url=database)
        assert said.code == 3
        assert "somebody has locked it: canceling statement due to lock timeout" in said.err


async def test_a_host_that_accepts_and_says_nothing_is_told_apart(database: str) -> None:
    async with Proxy(database) as proxy:
        proxy.hold()
        said = (await run("status", DATABASE_URL=proxy.url())).complaint(UNREACHABLE)
    assert said.startswith(
        f"the database cannot be reached: no answer within 5 s (postgresql://postgres@127.0.0.1:{proxy.port}/"
    )


@pytest.mark.parametrize("statements_kept", [100, 0])
async def test_types_of_postgresqls_own_are_looked_up_once_others_by_each_connection(
    database: str, monkeypatch: pytest.MonkeyPatch, statements_kept: int
) -> None:
    looked_up: list[set[int]] = []
    original = asyncpg.Connection._introspect_types  # type: ignore[attr-defined]  # noqa: SLF001

    async def look_up(self: object, types: Any, timeout_s: float | None) -> Any:
        looked_up.append(set(types))
        return await original(self, types, timeout_s)

    monkeypatch.setattr(asyncpg.Connection, "_introspect_types", look_up)
    monkeypatch.setattr(connections, "_own_types", {})
    async with connected(database) as owner:
        await owner.execute("CREATE TYPE public.mood AS ENUM ('calm', 'wild')")
    for _ in range(2):
        one = await asyncpg.connect(
            database, connection_class=connections.BatchConnection, statement_cache_size=statements_kept
        )
        try:
            assert await one.fetchval("SELECT $1::smallint[]", [1, 2]) == [1, 2]
            assert await one.fetchval("SELECT $1::public.mood[]", ["wild"]) == ["wild"]
        finally:
            await one.close()
    assert [max(types) >= connections.ASSIGNED_BY_HAND for types in looked_up] == [False, True, True]
