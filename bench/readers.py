"""What N workers read per event handled, compared with one."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Any

from bench.figures import Goal, Section, table
from bench.scene import Child, connected

if TYPE_CHECKING:
    from bench.scene import Scene

WORKERS = (1, 2, 4, 8, 16)
BACKLOG = 50_000
LIVE_PER_S, LIVE_S = 300, 6
GROWTH_MAX = 2.0
INSERT = (
    "INSERT INTO reactive_orch.events (aggregate_type, aggregate_id, aggregate_version, event_type) "
    "VALUES ('Order', gen_random_uuid()::text, 1, 'OrderPlaced')"
)
COUNTERS = """
SELECT coalesce(s.seq_tup_read, 0) + coalesce(s.idx_tup_fetch, 0) AS rows,
       i.heap_blks_hit + i.heap_blks_read + i.idx_blks_hit + i.idx_blks_read AS buffers
FROM pg_stat_user_tables s JOIN pg_statio_user_tables i USING (relid) WHERE s.relid = 'reactive_orch.events'::regclass
"""


async def measure(scene: Scene) -> Section:
    """Let N workers catch up, then follow."""
    rows: list[list[object]] = []
    worst: dict[str, float] = {}
    first: dict[str, float] = {}
    backlog = scene.scaled(BACKLOG, 5000)
    for count in WORKERS:
        figures = await _run(scene, count, backlog)
        first = first or figures
        ratios = {key: figures[key] / first[key] for key in figures}
        worst = {key: max(worst.get(key, 0.0), ratio) for key, ratio in ratios.items()}
        rows.append([count, *(f"{figures[key]:.2f} ({ratios[key]:.2f}x)" for key in figures)])
    text = (
        f"Rows and buffers of the log (table and indexes) per event handled, in brackets against one worker; a backlog of "
        f"{backlog:,} events at batch 100, then {LIVE_PER_S} events a second, one INSERT each (whose own "
        "buffers, measured without workers, are subtracted).\n\n"
        "Why buffers of the backlog grow: events of all partitions lie side by side in the table, some thirty to a page, so "
        "a sixteenth of them lies on nearly all pages, and each worker must visit those. Only a log stored by partition "
        "(declarative partitioning, which would make `partition` part of every unique key) or one reader for all workers of "
        "a machine would lower it. Why live rows grow: each worker meets each new event on its one page. To pass over it "
        "there costs less than to look for the own partitions in the index, three buffers each; an index on "
        "(global_position, partition) would spare both on PostgreSQL 17 and later, for a tenth more work and WAL per append.\n\n"
        + table(["workers", "backlog: rows", "backlog: buffers", "live: rows", "live: buffers"], rows)
    )
    goals = [
        Goal(f"{key} per event, 1 to 16 workers ÷ 1", "≤ 2", f"at most {most:.2f}", round(most, 1) <= GROWTH_MAX)
        for key, most in worst.items()
    ]
    return Section("Readers", text, goals)


async def _run(scene: Scene, count: int, backlog: int) -> dict[str, float]:
    url = scene.database(events=backlog)
    async with contextlib.AsyncExitStack() as stack:
        connection = await stack.enter_async_context(connected(url))
        processes = min(count, 4)
        arguments: dict[str, Any] = {
            "url": url,
            "replica_set": "readers",
            "names": ["noop_batch"],
            "count": count // processes,
        }
        children = [await stack.enter_async_context(Child("workers", **arguments)) for _ in range(processes)]

        async def all_of(what: str) -> None:
            await asyncio.gather(*(child.ask(what) for child in children))

        async def until(events: int) -> None:
            while sum([await child.ask("handled") for child in children]) < events:
                await asyncio.sleep(0.05)

        start = await _counters(connection)
        await all_of("start")
        await until(backlog)
        await all_of("stop")  # a backend hands its counters over when it ends, or only after ten idle seconds
        caught_up = await _counters(connection)
        await all_of("start")
        written = await _inserting(connection)
        await until(written)
        await all_of("stop")
        after = await _counters(connection)
    scene.drop(url)
    return {
        "backlog: rows": (caught_up["rows"] - start["rows"]) / backlog,
        "backlog: buffers": (caught_up["buffers"] - start["buffers"]) / backlog,
        "live: rows": (after["rows"] - caught_up["rows"]) / written,
        "live: buffers": (after["buffers"] - caught_up["buffers"]) / written - await _buffers_per_insert(scene),
    }


async def _inserting(connection: Any) -> int:
    began, events = time.monotonic(), LIVE_PER_S * LIVE_S
    for n in range(events):
        await connection.execute(INSERT)
        await asyncio.sleep(max(began + n / LIVE_PER_S - time.monotonic(), 0))
    return events


async def _buffers_per_insert(scene: Scene) -> float:
    """Return what the writer's INSERTs cost by themselves, in buffers of the log per event."""
    url = scene.database(events=0)
    async with connected(url) as connection:
        before = await _counters(connection)
        async with connected(url) as writer:
            await writer.execute("SELECT reactive_orch.arm_bell('events', 0)")
            for _ in range(500):
                await writer.execute(INSERT)
        await asyncio.sleep(0.2)
        after = await _counters(connection)
    scene.drop(url)
    return (after["buffers"] - before["buffers"]) / 500


async def _counters(connection: Any) -> dict[str, int]:
    await asyncio.sleep(0.3)
    await connection.execute("SELECT pg_stat_clear_snapshot()")
    return dict(await connection.fetchrow(COUNTERS))
