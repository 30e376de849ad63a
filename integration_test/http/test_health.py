"""What health says in each state that a worker can be driven into."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from integration_test.harness.connections import connected, prepared
from integration_test.harness.health import ILL, OUT, WELL, running, says, verdict
from integration_test.harness.load import Load, append_events, gate_closed
from integration_test.harness.projections import GATE, handled, handled_at_gate
from integration_test.harness.telemetry_projections import betraying
from integration_test.harness.waiting import wait_until
from reactive_orch import NewEvent, append
from reactive_orch.core import health
from reactive_orch.model import Filter, WorkerState
from reactive_orch.runtime.reading import ringing

if TYPE_CHECKING:
    import pytest

    from integration_test.harness.cluster import Cluster


async def test_health_of_a_rebalance_that_takes_too_long(database: str) -> None:
    async with prepared(database) as connection, running(database, handled_at_gate, rebalance_s=1.0) as (_, first):
        await wait_until(says(first, WELL))
        async with gate_closed(database) as waiting:
            await append_events(connection, 100, keys=100)
            await wait_until(waiting, what="a batch is in flight")
            async with running(database, handled_at_gate, rebalance_s=1.0) as (_, second):

                async def rebalances() -> bool:
                    return second.state is WorkerState.REBALANCING and verdict(second) == WELL

                await wait_until(rebalances)
                await wait_until(says(second, OUT, "generation 2 is not settled yet"))
                await connection.execute("SELECT pg_advisory_unlock($1)", GATE)
                assert first.state is WorkerState.REBALANCING
                break_gate = "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE objid = $1 AND granted"
                await connection.execute(break_gate, GATE)
                await wait_until(says(second, WELL))
                await wait_until(says(first, WELL))


async def test_health_while_draining(database: str) -> None:
    async with prepared(database) as connection, running(database, handled_at_gate) as (_, worker):
        await wait_until(says(worker, WELL))
        async with gate_closed(database) as waiting:
            await append_events(connection, 1)
            await wait_until(waiting, what="a batch is in flight")
            worker.stop()
            await wait_until(says(worker, OUT, "draining"))


async def test_health_without_notifications(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ringing, "POLL_S", 0.5)
    async with prepared(database) as connection, running(database, handled) as (_, worker):
        await wait_until(says(worker, WELL))
        await connection.execute(
            "CREATE OR REPLACE FUNCTION reactive_orch.notify(channel text, payload text) RETURNS void "
            "LANGUAGE sql AS $$ SELECT $$"
        )
        async with Load(database, pause_s=0.5):
            await wait_until(says(worker, WELL, "notifications do not arrive"), what="it says that it polls")


async def test_health_without_a_refused_projection(database: str) -> None:
    narrowed = replace(betraying, filter=Filter(aggregate_types=("Key",)))
    async with prepared(database), running(database, handled, betraying) as (_, worker):
        await wait_until(says(worker, WELL))
    async with running(database, handled, narrowed) as (_, worker):
        await wait_until(says(worker, WELL, "projection betraying is recorded with another filter"))


async def test_health_without_a_membership_connection(database: str, cluster: Cluster) -> None:
    async with (
        prepared(database),
        running(database, handled) as (node, worker),
        connected(cluster.url()) as operator,
    ):
        await wait_until(says(worker, WELL))
        name = database.rpartition("/")[2]
        await operator.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        try:
            await operator.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE $1",
                f"reactive_orch:membership:{node.label}%",
            )
            await wait_until(says(worker, OUT))
        finally:
            await operator.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
        await wait_until(says(worker, WELL))


async def test_health_with_a_failing_event_and_a_held_frontier(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "STUCK_AFTER_S", 1.0)
    monkeypatch.setattr(health, "HELD_AFTER_S", 1.0)
    async with prepared(database) as connection, running(database, betraying, retries=1000) as (_, worker):
        await wait_until(says(worker, WELL))
        await append(connection, [NewEvent(aggregate_type="Poison", aggregate_id="python", event_type="P")])
        await wait_until(says(worker, WELL, "projection betraying: 1 key waits behind a failed event"))
        async with connected(database) as writer:
            transaction = writer.transaction()
            await transaction.start()
            await append_events(writer, 1)
            await wait_until(says(worker, ILL, "the log cannot be read on"))
            await transaction.rollback()
        await wait_until(says(worker, WELL))
