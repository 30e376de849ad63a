"""docs/docker.md, walked: what is started, and what happens to workers in containers.

One stack serves all tests. Each leaves three healthy workers, and has every event handled once and in order.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from integration_test.environments.containers.pages import becomes, get, handles_more, page
from integration_test.environments.containers.stack import (
    GRACE_S,
    PATIENCE_S,
    address,
    inspected,
    run_beside,
    wait_healthy,
)
from integration_test.environments.podman import podman
from integration_test.harness.checkers import generations, wait_settled
from integration_test.harness.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from integration_test.environments.containers.stack import Stack
    from integration_test.harness.connections import Connection

pytestmark = pytest.mark.timeout(1800)

_RIGHTS = ("sed", "-nE", r"s/^(Uid|CapBnd|CapEff|NoNewPrivs):\s+(\w+).*/\1 \2/p", "/proc/1/status")


@pytest.fixture
async def log(stack: Stack) -> AsyncIterator[Connection]:
    """The stack's database, with three workers settled; at the end all that was appended must have been handled."""
    connection = await stack.database()
    await wait_settled(connection, "shop", 3, PATIENCE_S)
    await wait_healthy(*stack.workers())
    yield connection
    await connection.close()
    await assert_each_once_in_order(stack)
    assert len(stack.workers()) == 3


async def assert_each_once_in_order(stack: Stack) -> None:
    """Have the appender stop, and compare what was made of the log with the log."""
    connection = await stack.database()
    stack.compose("stop", "appender")

    async def all_is_there() -> bool:
        return not await connection.fetch(_DIFFERENCES)

    await wait_until(all_is_there, PATIENCE_S, "orders are counted once, and are as their last events say")
    stack.compose("start", "appender")
    await connection.close()


_DIFFERENCES = """
SELECT customer, placed.orders, counted.orders
FROM (SELECT convert_from(e.payload, 'UTF8')::jsonb->>'customer' AS customer, count(*) AS orders
      FROM reactive_orch.events e WHERE e.event_type = 'OrderPlaced' GROUP BY 1) placed
FULL JOIN orders_per_customer counted USING (customer) WHERE placed.orders IS DISTINCT FROM counted.orders
UNION ALL
SELECT order_id, last.position, NULL
FROM (SELECT DISTINCT ON (e.aggregate_id) e.aggregate_id AS order_id, e.event_type, e.global_position AS position
      FROM reactive_orch.events e ORDER BY e.aggregate_id, e.global_position DESC) last
FULL JOIN order_list listed USING (order_id) WHERE listed.state IS DISTINCT FROM lower(substr(last.event_type, 6))
"""
"""A customer whose orders are not counted once each, an order whose state is not that of its last event."""


async def _reasons(log: Connection) -> list[tuple[str, list[int]]]:
    return [(row["reason"], list(row["subjects"])) for row in await generations(log, "shop")]


async def _scraped(stack: Stack, workers: int) -> None:
    """Wait until Prometheus scrapes so many workers, and says that each is up."""
    query = f"http://{address(stack.name('prometheus'))}:9090/api/v1/query?query=up"

    async def all_up() -> bool:
        _, found = await get(query)
        series = found["data"]["result"] if found else []
        up = [each["value"][1] for each in series if each["metric"]["job"] == "reactive_orch"]
        return up == ["1"] * workers

    await wait_until(all_up, PATIENCE_S, f"Prometheus scrapes {workers} workers")


@pytest.mark.usefixtures("log")
async def test_up_gives_three_healthy_workers_that_prometheus_scrapes(stack: Stack) -> None:
    for worker in stack.workers():
        status, body = await page(worker, "readyz")
        assert (status, body["status"]) == (200, "serving")
        status, text = await page(worker, "metrics")
        assert status == 200
        assert "messaging_client_consumed_messages_total" in text
        await handles_more(worker)
    published = stack.compose("port", "--index=1", "worker", "8080").strip()
    assert published.startswith("127.0.0.1:")
    assert (await get(f"http://{published}/livez"))[0] == 200
    await _scraped(stack, 3)
    said = stack.compose("exec", "-T", "worker", "python", "-m", "reactive_orch", "status")
    assert "orders_per_customer" in said
    assert inspected(stack.name("migrate"))["State"]["ExitCode"] == 0


@pytest.mark.usefixtures("log")
async def test_each_rebalance_is_a_trace_in_jaeger(stack: Stack) -> None:
    if "jaeger" in stack.laid.left_out:
        pytest.skip("there is no Jaeger: `make test-jaeger` builds one")
    asked = f"http://{address(stack.name('jaeger'))}:16686/api/traces?service=reactive_orch&operation=rebalance%20shop"

    async def found() -> bool:
        _, traces = await get(asked)
        return bool(traces and traces["data"])

    await wait_until(found, PATIENCE_S, "the rebalances of the start have gone through the collector")


async def test_two_more_join_and_leave_again(stack: Stack, log: Connection) -> None:
    stack.compose("up", "--detach", "--scale", "worker=5", "--no-recreate")
    await wait_settled(log, "shop", 5, PATIENCE_S)
    await wait_healthy(*stack.workers())
    for worker in stack.workers():
        await handles_more(worker)
    await _scraped(stack, 5)
    before = len(await _reasons(log))
    stack.compose("up", "--detach", "--scale", "worker=3", "--no-recreate")
    await wait_settled(log, "shop", 3, PATIENCE_S)
    assert {reason for reason, _ in (await _reasons(log))[before:]} == {"leave"}
    await _scraped(stack, 3)


async def test_workers_have_no_rights_and_need_none(stack: Stack, log: Connection) -> None:
    for worker in stack.workers():
        assert inspected(worker)["HostConfig"]["ReadonlyRootfs"]
        assert podman("exec", worker, *_RIGHTS) == (
            "Uid 10001\nCapEff 0000000000000000\nCapBnd 0000000000000000\nNoNewPrivs 1"
        )
    with run_beside(stack, "--user=12345:0") as worker:
        await wait_settled(log, "shop", 4, PATIENCE_S)
        await handles_more(worker)
        assert podman("exec", worker, "id", "--user") == "12345"
        podman("stop", f"--time={GRACE_S}", worker)
        assert inspected(worker)["State"]["ExitCode"] == 0


async def test_one_is_killed_and_started_again(stack: Stack, log: Connection) -> None:
    worker = stack.name("worker", 2)
    killed = (await becomes(worker, "serving"))["worker"]
    podman("kill", worker)
    await wait_settled(log, "shop", 2, PATIENCE_S)
    assert (await _reasons(log))[-1] == ("death", [killed])
    podman("start", worker)
    await wait_settled(log, "shop", 3, PATIENCE_S)
    await wait_healthy(worker)
    await handles_more(worker)


async def test_one_is_paused_for_longer_than_stale_and_comes_back_under_a_new_id(stack: Stack, log: Connection) -> None:
    worker = stack.name("worker", 3)
    frozen = (await becomes(worker, "serving"))["worker"]
    podman("pause", worker)
    await wait_settled(log, "shop", 2, PATIENCE_S)
    assert (await _reasons(log))[-1] == ("stale", [frozen])
    podman("unpause", worker)
    await wait_settled(log, "shop", 3, PATIENCE_S)
    assert (await becomes(worker, "serving"))["worker"] > frozen
    await handles_more(worker)


async def test_a_stopped_one_finishes_the_batch_in_hand(stack: Stack, log: Connection) -> None:
    worker = stack.name("worker", 1)
    leaving = (await becomes(worker, "serving"))["worker"]
    holder = await stack.database()
    async with holder.transaction():
        await holder.execute("LOCK TABLE order_list IN SHARE MODE")

        async def in_hand() -> object:
            return await log.fetchval(_WAITS, leaving)

        await wait_until(in_hand, PATIENCE_S, f"{worker} has a batch in hand")
        stopping = asyncio.create_task(asyncio.to_thread(podman, "stop", f"--time={GRACE_S}", worker))
        await becomes(worker, "stopping")
        assert not stopping.done()
    await stopping
    state = inspected(worker)["State"]
    assert state["ExitCode"] == 0
    assert (await _reasons(log))[-1] == ("leave", [leaving])
    await holder.close()
    podman("start", worker)
    await wait_settled(log, "shop", 3, PATIENCE_S)


_WAITS = """
SELECT a.pid FROM reactive_orch.members m
JOIN pg_stat_activity a ON a.application_name LIKE 'reactive_orch:%:' || m.name
WHERE m.id = $1 AND a.wait_event_type = 'Lock' AND a.query LIKE '%order_list%'
"""


async def test_the_database_restarts_and_no_worker_does(stack: Stack, log: Connection) -> None:
    began = {worker: inspected(worker)["State"]["StartedAt"] for worker in stack.workers()}
    await log.close()
    stack.compose("restart", "postgres")
    await wait_healthy(stack.name("postgres"), *stack.workers())
    for worker in stack.workers():
        await handles_more(worker)
    assert {worker: inspected(worker)["State"]["StartedAt"] for worker in stack.workers()} == began
