"""A log of fifty million events, and ten projections that join late, while another one handles what is fresh."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.figures import Goal, Section, median, percentile, table
from bench.load import load, one_key_per_partition
from bench.memory import LIMIT_MB, PROJECTIONS
from bench.scene import ROOT, command_line, connected
from integration_test.harness.load import stand

if TYPE_CHECKING:
    from bench.scene import CliWorker, Scene

EVENTS = 50_000_000
FRESH_PER_S = 50
ALONE_S = 15.0
SLICE_S = 30.0
LONGEST_S = 900.0
WORKERS = 2
DELAYS = """
SELECT extract(epoch FROM at - created_at)::float8 * 1000 AS ms FROM public.bench_handled WHERE at BETWEEN $1 AND $2
"""
READ = """
SELECT coalesce(sum(position), 0)::float8 / 64 AS events, count(DISTINCT projection) FILTER (WHERE position > 0) AS begun,
       bool_and(position >= $2) AS done, clock_timestamp() AS at
FROM reactive_orch.checkpoints WHERE replica_set = 'large' AND projection = ANY ($1::text[])
"""
"""Events that the ten have passed: positions are those of all partitions, 64 to a projection."""


async def measure(scene: Scene) -> Section:
    """Fill the log; measure fresh events alone, then while the ten catch up."""
    events = scene.scaled(EVENTS, 200_000)
    url = scene.database()
    await asyncio.to_thread(_fill, url, events)
    async with AsyncExitStack() as stack:
        connection = await stack.enter_async_context(connected(url))
        size = await connection.fetchval("SELECT pg_total_relation_size('reactive_orch.events') >> 30")
        await stand(connection, "record", partitions=range(64), position=events, replica_set="large")
        keys = await one_key_per_partition(connection)
        await stack.enter_async_context(load(url, FRESH_PER_S, keys, synchronous_commit="off"))
        async with command_line(url, "large", ["record"]) as alone:
            await alone.said("adopted in")
            began = await connection.fetchval("SELECT clock_timestamp()")
            await asyncio.sleep(ALONE_S)
            fresh_alone = await _delays(connection, began)
        late = [command_line(url, "large", ["record", *PROJECTIONS], "--batch", "500") for _ in range(WORKERS)]
        workers = [await stack.enter_async_context(each) for each in late]
        first_s, slices = await _catch_up(connection, workers, events)
    scene.drop(url)
    return _section(events, size, first_s, fresh_alone, slices)


def _fill(url: str, events: int) -> None:
    subprocess.run([sys.executable, "-m", "bench.fill", url, str(events), "--bulk"], check=True, cwd=ROOT)  # noqa: S603


async def _delays(connection: Any, began: Any) -> list[float]:
    now = await connection.fetchval("SELECT clock_timestamp()")
    return [row["ms"] for row in await connection.fetch(DELAYS, began, now)]


async def _catch_up(
    connection: Any, workers: list[CliWorker], events: int
) -> tuple[float, list[tuple[float, float, list[float], float]]]:
    """Return after how many seconds all ten had begun, and of each slice its end, rate, fresh delays, and memory in MB."""
    began = time.monotonic()
    for worker in workers:
        await worker.said("adopted in")
    look = await connection.fetchrow(READ, PROJECTIONS, events)
    while look["begun"] < len(PROJECTIONS):
        await asyncio.sleep(0.1)
        look = await connection.fetchrow(READ, PROJECTIONS, events)
    first_s = time.monotonic() - began
    slices = []
    while not look["done"] and time.monotonic() < began + LONGEST_S:
        before = look
        await asyncio.sleep(SLICE_S)
        look = await connection.fetchrow(READ, PROJECTIONS, events)
        rate = (look["events"] - before["events"]) / (look["at"] - before["at"]).total_seconds()
        delays = await _delays(connection, before["at"])
        slices.append((time.monotonic() - began, rate, delays, max(_memory(worker) for worker in workers)))
    return first_s, slices


def _memory(worker: CliWorker) -> float:
    status = Path(f"/proc/{worker.process.pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def _section(
    events: int, size: int, first_s: float, alone: list[float], slices: list[tuple[float, float, list[float], float]]
) -> Section:
    rows = [
        [f"{end:.0f}", f"{rate:,.0f}", *(f"{percentile(delays, share):.1f}" for share in (0.5, 0.99)), f"{memory:.0f}"]
        for end, rate, delays, memory in slices
    ]
    text = (
        f"{events:,} events, {size} GB with indexes. {WORKERS} workers with ten projections more than before; after {first_s:.1f} s all ten "
        f"had begun. {FRESH_PER_S} fresh events a second for a projection that stands at the end: from INSERT to the handler's INSERT "
        f"p50 {percentile(alone, 0.5):.1f} ms, p99 {percentile(alone, 0.99):.1f} ms before the ten came.\n\n"
        + table(["until s", "events/s, all ten", "fresh p50 ms", "p99", "memory of the larger, MB"], rows)
    )
    ratio = median([median(delays) for _, _, delays, _ in slices]) / median(alone)
    whole = [rate for _, rate, _, _ in slices[:-1]] or [slices[0][1]]
    depth, most = whole[-1] / whole[0], max(memory for *_, memory in slices)
    goals = [
        Goal("ten late projections: fresh events' p50 beside them ÷ before", "≤ 5", f"{ratio:.1f}", ratio <= 5),
        Goal("ten late projections: events/s, last whole slice ÷ first", "≥ 0.7", f"{depth:.2f}", depth >= 0.7),
        Goal("ten late projections: memory", f"≤ {LIMIT_MB} MB", f"{most:.0f} MB", most <= LIMIT_MB),
    ]
    return Section("A large log", text, goals)
