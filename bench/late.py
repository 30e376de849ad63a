"""Fresh events for one projection while ten others, in the same worker, begin with the log: what `large` has, in short.

One projection stands at the end of the log and handles what is fresh; a worker runs it alone, then another one runs it
beside ten that begin at the beginning. Measured from when all ten have begun until the first of them is through.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from bench.figures import Goal, Section, median, percentile, table
from bench.load import load, one_key_per_partition
from bench.memory import PROJECTIONS
from bench.scene import Child, connected
from integration_test.harness.load import stand

if TYPE_CHECKING:
    from bench.scene import Scene

EVENTS = 200_000
FRESH_PER_S = 20
ALONE_S = 4.0
LONGEST_S = 12.0
BATCH = 500
DELAYS = """
SELECT extract(epoch FROM at - created_at)::float8 * 1000 AS ms FROM public.bench_handled
WHERE created_at BETWEEN $1 AND $2
"""
LATE = """
SELECT coalesce(sum(position), 0)::float8 / 64 AS events, count(DISTINCT projection) FILTER (WHERE position > 0) AS begun,
       bool_or(position >= $2) AS done, clock_timestamp() AS at
FROM reactive_orch.checkpoints WHERE replica_set = 'late' AND projection = ANY ($1::text[])
"""
"""Events that the ten have passed, and whether the first of them has passed all: then there are fewer than ten."""


async def measure(scene: Scene) -> Section:
    """Divide the delays beside the ten by those of a worker that has none of them."""
    events = scene.scaled(EVENTS, 50_000)
    url = scene.database(events=events)
    async with connected(url) as connection:
        await stand(connection, "record", partitions=range(64), position=events, replica_set="late")
        keys = await one_key_per_partition(connection)
        async with load(url, FRESH_PER_S, keys, synchronous_commit="off"):
            async with Child("workers", url=url, replica_set="late", names=["record"], batch=BATCH) as worker:
                await worker.ask("start")
                alone = await _alone(connection)
                await worker.ask("stop")
            names = ["record", *PROJECTIONS]
            async with Child("workers", url=url, replica_set="late", names=names, batch=BATCH) as worker:
                await worker.ask("start")
                beside, rate = await _beside(connection, events)
    scene.drop(url)
    return _section(events, alone, beside, rate)


async def _alone(connection: Any) -> list[float]:
    began = await connection.fetchval("SELECT clock_timestamp()")
    await asyncio.sleep(ALONE_S)
    return await _delays(connection, began, await connection.fetchval("SELECT clock_timestamp()"))


async def _beside(connection: Any, events: int) -> tuple[list[float], float]:
    """Return the delays while all ten were at work, and how many events they passed in a second."""
    first = await connection.fetchrow(LATE, PROJECTIONS, events)
    while first["begun"] < len(PROJECTIONS):
        await asyncio.sleep(0.02)
        first = await connection.fetchrow(LATE, PROJECTIONS, events)
    last, ends = first, time.monotonic() + LONGEST_S
    while not last["done"] and time.monotonic() < ends:
        await asyncio.sleep(0.1)
        last = await connection.fetchrow(LATE, PROJECTIONS, events)
    seconds = (last["at"] - first["at"]).total_seconds()
    await asyncio.sleep(1.0)  # until the last fresh ones, too, have been handled
    return await _delays(connection, first["at"], last["at"]), (last["events"] - first["events"]) / seconds


async def _delays(connection: Any, began: Any, ended: Any) -> list[float]:
    return [row["ms"] for row in await connection.fetch(DELAYS, began, ended)]


def _section(events: int, alone: list[float], beside: list[float], rate: float) -> Section:
    text = (
        f"{(__doc__ or '').split(chr(10) * 2, 1)[1]}\n{events:,} events, batches of {BATCH}, {FRESH_PER_S} fresh events a second. "
        f"The ten passed {rate:,.0f} events/s, all together. Milliseconds from an event's INSERT to its handler's INSERT:\n\n"
        + table(["fresh events", "", "p50", "p90", "p99", "worst"], [_row("alone", alone), _row("beside ten", beside)])
    )
    ratio = median(beside) / median(alone)
    goal = Goal("ten late projections: fresh events' p50 beside them ÷ alone", "≤ 5", f"{ratio:.1f}", ratio <= 5)
    return Section("Late projections", text, [goal])


def _row(name: str, delays: list[float]) -> list[str]:
    return [name, str(len(delays)), *(f"{percentile(delays, share):.1f}" for share in (0.5, 0.9, 0.99, 1.0))]
