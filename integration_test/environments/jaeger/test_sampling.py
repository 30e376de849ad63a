"""Which traces of batches the collector keeps: all that failed or were slow, some late, a twentieth of the rest."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from integration_test.environments.jaeger.asking import Jaeger, get
from integration_test.environments.jaeger.stack import Stack
from integration_test.harness.connections import prepared
from integration_test.harness.load import append_events
from integration_test.harness.processes import WorkerProcess
from integration_test.harness.projections import POISON, SLEEP
from integration_test.harness.waiting import wait_until

if TYPE_CHECKING:
    from integration_test.harness.connections import Connection

KEPT = 0.05
SERVICE = "reactive_orch"


async def test_all_errors_all_slow_some_late_and_a_twentieth_of_the_rest(database: str) -> None:
    async with Stack() as stack, prepared(database) as connection:
        jaeger = Jaeger(stack.jaeger_url)

        async def handled_all(projection: str, *options: str) -> WorkerProcess:
            everything = {"OTEL_TRACES_SAMPLER": "always_on", "OTEL_BSP_MAX_QUEUE_SIZE": "20000", SLEEP: "1.1"}
            env = stack.environment(**everything)
            once = ("--until-idle", *options)
            async with WorkerProcess(database, projection, projections=[projection], options=once, env=env) as worker:
                assert await worker.wait() == 0
            return worker

        async def kept(projection: str) -> int:
            return len(await jaeger.search(SERVICE, f"process {projection}", limit=10_000))

        async def all_kept() -> bool:
            all_of = {"failing": attempts, "handled_slowly": slow, "handled_in_batches": late}
            return {each: await kept(each) for each in all_of} == all_of

        await append_events(connection, 8, keys=8, event_type=POISON)
        failing = await handled_all("failing", "--retries", "2")
        attempts = sum(line.startswith("attempt at position") for line in failing.log)
        await handled_all("handled_slowly", "--batch", "1")
        slow = await batches(connection, "handled_slowly")
        await handled_all("handled_in_batches", "--batch", "4")  # quick, but the events are seconds old
        late = await batches(connection, "handled_in_batches")
        await append_events(connection, 4000, keys=400)
        await connection.execute(_NONE_IS_LATE)
        await handled_all("handled", "--batch", "2")
        fast = await batches(connection, "handled")
        assert (attempts, slow) >= (8, 8)
        assert late >= 2
        assert fast >= 2000

        async def all_counted() -> bool:
            return await counted(stack, "handled") == fast

        await wait_until(all_counted, what=f"the collector has counted {fast} batches")
        await wait_until(all_kept, what=f"{attempts} failed batches, {slow} slow and {late} late ones are in Jaeger")
        five_sigma = 5 * math.sqrt(fast * KEPT * (1 - KEPT))
        assert abs(await kept("handled") - fast * KEPT) < five_sigma


_NONE_IS_LATE = "UPDATE reactive_orch.events SET created_at = created_at + interval '1 hour'"


async def batches(connection: Connection, projection: str) -> int:
    """Return how many batches were committed: each is a transaction."""
    return int(await connection.fetchval(_BATCHES, projection))


_BATCHES = "SELECT count(DISTINCT h.txid) FROM public.handled h WHERE h.projection = $1"


async def counted(stack: Stack, projection: str) -> int:
    """Return how many batches the collector has counted, before it dropped any."""
    query = f'sum(traces_span_metrics_calls_total{{span_name="process {projection}"}})'
    found = await get(f"{stack.prometheus.url}/api/v1/query", query=query)
    return sum(int(each["value"][1]) for each in found["data"]["result"])
