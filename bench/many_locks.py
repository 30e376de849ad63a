"""From COMMIT to the handler while a transaction holds 5,000 locks of something else, against none."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from bench.figures import Goal, Section, median, spread, table
from bench.latency import turn
from bench.scene import Child, connected

if TYPE_CHECKING:
    from bench.scene import Scene

LOCKS = 5000
LOOKS = 50


async def measure(scene: Scene) -> Section:
    """Take turns without and with the locks; each pair is one ratio."""
    url = scene.database()
    names = ("commit → handler called", "a look, nothing missing", "a look at the holders")
    free: dict[str, list[float]] = {name: [] for name in names}
    held: dict[str, list[float]] = {name: [] for name in names}
    async with (
        connected(url) as holder,
        connected(url) as reader,
        Child("workers", url=url, replica_set="locks", names=["clock"]) as worker,
    ):
        await worker.ask("start")
        await turn(url, worker)
        for _ in range(max(scene.scaled(scene.repeat), 3)):
            await _one(url, worker, reader, free)
            async with holder.transaction():
                await holder.execute("SELECT pg_advisory_xact_lock(n) FROM generate_series(1, $1::integer) n", LOCKS)
                await _one(url, worker, reader, held)
    scene.drop(url)
    ratios = {name: [b / a for a, b in zip(free[name], held[name], strict=True)] for name in names}
    rows = [[name, spread(free[name]), spread(held[name]), spread(ratios[name])] for name in names]
    goals = [
        Goal(f"{name}, beside {LOCKS:,} locks ÷ none", "≤ 1.2", spread(ratios[name]), median(ratios[name]) <= 1.2)
        for name in names[:2]
    ]
    head = ["", "no locks", f"{LOCKS:,} locks", "÷"]
    return Section("Many locks", "Medians of each turn in milliseconds.\n\n" + table(head, rows), goals)


async def _one(url: str, worker: Child, reader: Any, figures: dict[str, list[float]]) -> None:
    called, whole, holders = figures.values()
    called.append(median([delay.sent for delay in (await turn(url, worker))["called"]]))
    head = await reader.fetchval("SELECT head FROM reactive_orch.observe_log('events')")
    whole.append(await _looks(reader, "SELECT * FROM reactive_orch.observe_log_from('events', $1)", head - 1))
    holders.append(await _looks(reader, "SELECT * FROM reactive_orch.observe_log('events') WHERE $1::bigint > 0", head))


async def _looks(reader: Any, query: str, position: int) -> float:
    times = []
    for _ in range(LOOKS):
        began = time.perf_counter()
        await reader.fetch(query, position)
        times.append((time.perf_counter() - began) * 1000)
    return median(times)
