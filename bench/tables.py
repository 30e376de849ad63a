"""The checkpoint table under 500 batches a second, with an old snapshot held open for part of the time.

Ten lanes of a bare swap loop, each moving eight partitions of its own projection, paced to 500 batches a second in
all. After the first quarter another session opens a snapshot (a long report) and holds it for a quarter.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from bench.figures import Goal, Section, median, percentile, table
from bench.scene import connected
from reactive_orch.model import Checkpoint, Swap
from reactive_orch.postgres import checkpoints
from reactive_orch.postgres.database import Database

if TYPE_CHECKING:
    from bench.scene import Scene

BATCHES_PER_S = 500
LANES = 10
PARTITIONS = 8
SLICES = 12
SIZES = """
SELECT pg_relation_size('reactive_orch.checkpoints') AS heap, pg_indexes_size('reactive_orch.checkpoints') AS indexes,
       s.n_dead_tup AS dead, s.autovacuum_count AS vacuums,
       s.n_tup_hot_upd * 100 / greatest(s.n_tup_upd, 1) AS hot
FROM pg_stat_user_tables s WHERE s.relid = 'reactive_orch.checkpoints'::regclass
"""


async def measure(scene: Scene) -> Section:
    """Swap for some minutes; look at the sizes and times by slices."""
    url = scene.database()
    seconds = scene.minutes * 60
    names = [f"lane_{n}" for n in range(LANES)]
    database = Database(url, label="tables", connections_max=LANES, handler_timeout_s=60.0)
    await database.open()
    times: list[list[float]] = [[] for _ in range(SLICES)]
    rows: list[list[object]] = []
    async with connected(url) as connection, connected(url) as report:
        await connection.execute("SELECT reactive_orch.register_projections('tables', $1, $2)", names, ["{}"] * LANES)
        # Autovacuum looks once a minute by default; a run of a few minutes has to see it come by.
        began = time.monotonic()
        lanes = [asyncio.create_task(_lane(database, name, times, began, seconds)) for name in names]
        for n in range(SLICES):
            held = SLICES // 4 <= n < SLICES // 2
            if n == SLICES // 4:
                await report.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
                await report.fetchval("SELECT count(*) FROM reactive_orch.checkpoints")
            if n == SLICES // 2:
                await report.execute("COMMIT")
            await asyncio.sleep(max(began + (n + 1) * seconds / SLICES - time.monotonic(), 0))
            rows.append(await _row(connection, n, times[n], seconds, held=held))
        await asyncio.gather(*lanes)
    await database.close()
    before, after = times[SLICES // 4 - 1], times[-1]
    ratio = median(after) / median(before)
    text = (
        (__doc__ or "").split("\n\n", 1)[1]
        + f"\n{scene.minutes:g} minutes:\n\n"
        + table(
            [
                "until s",
                "old snapshot",
                "batches/s",
                "swap p50 ms",
                "p99",
                "heap kB",
                "indexes kB",
                "dead rows",
                "vacuums",
                "HOT %",
            ],
            rows,
        )
    )
    goals = [Goal("swap p50 after the old snapshot ÷ before", "recovers: ≤ 1.5", f"{ratio:.2f}", ratio <= 1.5)]
    return Section("Checkpoint table", text, goals)


async def _lane(database: Database, name: str, times: list[list[float]], began: float, seconds: float) -> None:
    position, n = 0, 0
    while (now := time.monotonic()) < began + seconds:
        swaps = [Swap(p, Checkpoint(position, 0, 0), position + 1) for p in range(PARTITIONS)]
        async with database.processing() as connection, checkpoints.Batches(connection, "tables", name).batch(swaps):
            pass
        done = time.monotonic()
        times[min(int((done - began) / seconds * SLICES), SLICES - 1)].append((done - now) * 1000)
        position, n = position + 1, n + 1
        await asyncio.sleep(max(began + n * LANES / BATCHES_PER_S - time.monotonic(), 0))


async def _row(connection: Any, n: int, times: list[float], seconds: float, *, held: bool) -> list[object]:
    row = await connection.fetchrow(SIZES)
    return [
        f"{(n + 1) * seconds / SLICES:.0f}",
        "held" if held else "",
        f"{len(times) / (seconds / SLICES):.0f}",
        f"{percentile(times, 0.5):.2f}",
        f"{percentile(times, 0.99):.2f}",
        row["heap"] // 1024,
        row["indexes"] // 1024,
        row["dead"],
        row["vacuums"],
        row["hot"],
    ]
