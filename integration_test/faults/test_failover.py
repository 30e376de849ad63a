"""The primary is lost for good and a standby promoted: a worker that knows both hosts goes on there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import asyncpg
import pytest

from integration_test.harness.checkers import assert_each_once
from integration_test.harness.cluster import Cluster, Standby, migrate
from integration_test.harness.processes import WorkerProcess
from integration_test.harness.projections import create_tables
from integration_test.harness.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

pytestmark = pytest.mark.each_server

APPEND = (
    "INSERT INTO reactive_orch.events (aggregate_type, aggregate_id, aggregate_version, event_type) "
    "SELECT 'Order', 'order-' || n, $1, 'OrderPlaced' FROM generate_series(1, 50) AS n"
)


async def _prepared(primary: Cluster) -> str:
    url = primary.create_database("failover")
    migrate(url)
    connection = await asyncpg.connect(url)
    await create_tables(connection)
    await connection.close()
    return url


def _handled(connection: asyncpg.Connection[asyncpg.Record], events: int) -> Callable[[], Awaitable[bool]]:
    async def enough() -> bool:
        return int(await connection.fetchval("SELECT count(*) FROM public.handled")) >= events

    return enough


async def test_after_a_failover_the_worker_finds_the_new_primary(cluster: Cluster) -> None:
    with Cluster(cluster.version) as primary:
        url = await _prepared(primary)
        with Standby(primary) as standby:
            both = f"postgresql://postgres@127.0.0.1:{primary.port},127.0.0.1:{standby.port}/failover"
            async with WorkerProcess(both, "survivor") as worker:
                await worker.ready()
                before = await asyncpg.connect(url)
                await before.execute(APPEND, 1)
                await wait_until(_handled(before, 50), timeout_s=60)
                after = await asyncpg.connect(standby.url("failover"))
                await wait_until(_handled(after, 50), timeout_s=60)
                await before.close()
                primary.stop("immediate")
                await after.fetchval("SELECT pg_promote()")
                await after.execute(APPEND, 2)
                await wait_until(_handled(after, 100), timeout_s=60)
                await assert_each_once(after, "handled")
                await after.close()
            primary.start()  # for its own end in good order
