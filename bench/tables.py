"""The checkpoint table under 500 batches a second, while others keep its dead rows alive.

One worker with ten projections, 50 appends a second of eight events each: every append makes ten batches of eight
checkpoints. For a quarter of the time another session holds a snapshot (a long report), later for a quarter a batch of
another projection stays open (a slow handler): both keep vacuum from removing what died after they began.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Any

from bench.figures import Goal, Section, median, percentile, table
from bench.load import load
from bench.memory import PROJECTIONS
from bench.scene import Child, connected
from reactive_orch.model import OWN_LOG, Checkpoint, Filter, Subscription, Swap
from reactive_orch.postgres import checkpoints
from reactive_orch.postgres.database import Database

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from bench.scene import Scene

APPENDS_PER_S = 50
INSERT = (
    "INSERT INTO reactive_orch.events (aggregate_type, aggregate_id, aggregate_version, event_type) "
    "SELECT 'Load', $1 || n, $2, 'Loaded' FROM generate_series(1, 8) n"
)
SLICES = 12
REPORT, SLOW_BATCH = range(2, 5), range(7, 10)
"""Slices during which one of them is open."""
SIZES = """
SELECT pg_relation_size('reactive_orch.checkpoints') AS heap, pg_indexes_size('reactive_orch.checkpoints') AS indexes,
       (SELECT sum(pg_total_relation_size(c)) FROM unnest('{reactive_orch.members, reactive_orch.assignments,
        reactive_orch.generations, reactive_orch.replica_sets, reactive_orch.projections}'::regclass[]) c) AS others,
       s.n_dead_tup AS dead, s.autovacuum_count AS vacuums,
       s.n_tup_hot_upd * 100 / greatest(s.n_tup_upd, 1) AS hot
FROM pg_stat_user_tables s WHERE s.relid = 'reactive_orch.checkpoints'::regclass
"""
HEAD = (
    *("until s", "open", "batches/s", "events per batch", "swap p50 ms", "p99"),
    *("heap kB", "indexes kB", "membership tables kB", "dead rows", "vacuums", "HOT %"),
)


async def measure(scene: Scene) -> Section:
    """Look at sizes and times, slice by slice."""
    url = scene.database()
    seconds = scene.minutes * 60 / SLICES
    rows: list[list[object]] = []
    swaps: list[list[float]] = []
    async with (
        Child("workers", url=url, replica_set="tables", names=PROJECTIONS) as worker,
        connected(url) as connection,
    ):
        await worker.ask("start")
        async with contextlib.AsyncExitStack() as held, load(url, APPENDS_PER_S, insert=INSERT):
            began = time.monotonic()
            for n in range(SLICES):
                what = await _hold(held, url, n)
                await asyncio.sleep(max(began + (n + 1) * seconds - time.monotonic(), 0))
                batches = await worker.ask("batches")
                swaps.append([ms for ms, _ in batches])
                rows.append([f"{(n + 1) * seconds:.0f}", what, *_of(batches, seconds), *await _sizes(connection)])
    before, after = median(swaps[REPORT.start - 1]), median(swaps[-1])
    worst = max(percentile(part, 0.99) for part in swaps)
    goals = [
        Goal(
            "swap p50 after old snapshots ÷ before", "recovers: ≤ 1.5", f"{after / before:.2f}", after <= before * 1.5
        ),
        Goal("swap p99 of the worst slice", "usable: ≤ 100 ms", f"{worst:.0f} ms", worst <= 100),
    ]
    text = (__doc__ or "").split("\n\n", 1)[1] + f"\n{scene.minutes:g} minutes:\n\n" + table(HEAD, rows)
    return Section("Checkpoint table", text, goals)


async def _hold(held: contextlib.AsyncExitStack, url: str, n: int) -> str:
    """Open and close what is to be open in the n-th slice; return its name."""
    if n in {REPORT.start, SLOW_BATCH.start}:
        await held.enter_async_context(_report(url) if n in REPORT else _slow_batch(url))
    if n in {REPORT.stop, SLOW_BATCH.stop}:
        await held.aclose()
    return "a report's snapshot" if n in REPORT else "a slow batch" if n in SLOW_BATCH else ""


@contextlib.asynccontextmanager
async def _report(url: str) -> AsyncIterator[None]:
    async with connected(url) as report, report.transaction(isolation="repeatable_read"):
        await report.fetchval("SELECT count(*) FROM reactive_orch.checkpoints")
        yield


@contextlib.asynccontextmanager
async def _slow_batch(url: str) -> AsyncIterator[None]:
    database = Database(url, label="slow", connections_max=1, handler_timeout_s=600.0)
    await database.open()
    try:
        async with database.coordination() as connection:
            await connection.execute(
                "SELECT reactive_orch.register_projections('tables', '{slow}', '{events}', $1)",
                [checkpoints.filter_text(Filter())],
            )
        async with database.processing() as connection:
            batches = checkpoints.Batches(connection, "tables", Subscription("slow", OWN_LOG))
            async with batches.batch([Swap(p, Checkpoint(0, 0), 1) for p in range(8)]):
                yield
    finally:
        await database.close()


def _of(batches: list[tuple[float, int]], seconds: float) -> list[object]:
    times = [ms for ms, _ in batches]
    return [
        f"{len(batches) / seconds:.0f}",
        f"{sum(events for _, events in batches) / len(batches):.1f}",
        f"{percentile(times, 0.5):.2f}",
        f"{percentile(times, 0.99):.2f}",
    ]


async def _sizes(connection: Any) -> list[object]:
    row = await connection.fetchrow(SIZES)
    kilobytes = [int(row[name]) // 1024 for name in ("heap", "indexes", "others")]
    return [*kilobytes, row["dead"], row["vacuums"], row["hot"]]
