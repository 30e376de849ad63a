"""A fourth worker joins three under load and leaves again: how long until it is settled, and who pauses."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

from bench.figures import Goal, Section, median, percentile, table
from bench.load import load
from bench.scene import Child, connected

if TYPE_CHECKING:
    from bench.scene import Scene

EVENTS_PER_S = 400
ROUNDS = 15
GENERATIONS = """
SELECT g.reason, extract(epoch FROM g.completed_at - g.created_at) * 1000 AS ms
FROM reactive_orch.generations g WHERE g.number > $1 AND g.completed_at IS NOT NULL ORDER BY g.number
"""
# Of each adoption that gave or took anything, the milliseconds of its steps, one after the other.
STEPS = """
SELECT array_agg(extract(epoch FROM a.noticed_at - g.created_at)::float8 * 1000) AS noticed,
       array_agg(extract(epoch FROM a.finished_at - a.noticed_at)::float8 * 1000) FILTER (WHERE a.gave > 0) AS let_go,
       array_agg(extract(epoch FROM a.loaded_at - a.noticed_at)::float8 * 1000) FILTER (WHERE a.took > 0) AS loaded,
       array_agg(extract(epoch FROM a.acknowledged_at - greatest(a.noticed_at, a.finished_at, a.loaded_at))::float8 * 1000)
           AS acknowledged
FROM reactive_orch.adoptions a JOIN reactive_orch.generations g ON (g.replica_set, g.number) = (a.replica_set, a.generation)
WHERE g.number > $1 AND g.completed_at IS NOT NULL AND a.gave + a.took > 0
"""
STEP_NAMES = {
    "noticed": "generation's commit → the member's turn begins",
    "let_go": "→ the lost partitions are let go and saved",
    "loaded": "→ the gained ones are loaded",
    "acknowledged": "the later of these → acknowledged",
}
# While a generation settles, the worst delay of the partitions that stay (handled by the same worker before and after),
# and of those that move.
PAUSES = """
WITH g AS (
    SELECT g.number, g.created_at AS began, g.completed_at + interval '20 ms' AS ended
    FROM reactive_orch.generations g WHERE g.number > $1 AND g.completed_at IS NOT NULL
), h AS (
    SELECT g.number, h.partition, h.worker, extract(epoch FROM h.at - h.created_at) * 1000 AS ms,
           h.created_at BETWEEN g.began - interval '10 ms' AND g.ended AS during
    FROM g JOIN public.bench_handled h ON h.created_at BETWEEN g.began - interval '500 ms' AND g.ended + interval '500 ms'
), p AS (
    SELECT h.number, h.partition, count(DISTINCT h.worker) = 1 AS stays FROM h GROUP BY h.number, h.partition
)
SELECT p.stays, h.during, array_agg(h.ms::float8) AS ms FROM h JOIN p USING (number, partition) GROUP BY p.stays, h.during
"""


async def measure(scene: Scene) -> Section:
    """Join and leave, again and again."""
    url = scene.database()
    arguments: dict[str, Any] = {"url": url, "replica_set": "rebalance", "names": ["record"]}
    async with contextlib.AsyncExitStack() as stack:
        connection = await stack.enter_async_context(connected(url))
        for _ in range(3):
            await (await stack.enter_async_context(Child("workers", **arguments))).ask("start")
        fourth = await stack.enter_async_context(Child("workers", **arguments))
        first = await connection.fetchval("SELECT max(number) FROM reactive_orch.generations")
        async with load(url, EVENTS_PER_S):
            await asyncio.sleep(1)
            for _ in range(scene.scaled(ROUNDS, 3)):
                await fourth.ask("start")
                await asyncio.sleep(0.7)
                await fourth.ask("stop")
                await asyncio.sleep(0.7)
        generations = await connection.fetch(GENERATIONS, first)
        steps = await connection.fetchrow(STEPS, first)
        delays = {(r["stays"], r["during"]): r["ms"] for r in await connection.fetch(PAUSES, first)}
    assert steps is not None, "an aggregate returns one row"
    return _section([(row["reason"], float(row["ms"])) for row in generations], delays, dict(steps))


def _steps(steps: dict[str, list[float] | None]) -> str:
    """Return where the milliseconds of a member's adoption go."""
    rows = [
        [text, len(values), f"{median(values):.1f}", f"{percentile(values, 0.9):.1f}", f"{max(values):.1f}"]
        for name, text in STEP_NAMES.items()
        if (values := [ms for ms in steps[name] or () if ms is not None])
    ]
    return "Milliseconds of a member's steps:\n\n" + table(["step", "adoptions", "p50", "p90", "worst"], rows)


def _section(
    generations: list[tuple[str, float]],
    delays: dict[tuple[bool, bool], list[float]],
    steps: dict[str, list[float] | None],
) -> Section:
    rows = []
    for reason in sorted({reason for reason, _ in generations}):
        values = [ms for why, ms in generations if why == reason]
        rows.append(
            [reason, len(values), f"{median(values):.1f}", f"{percentile(values, 0.9):.1f}", f"{max(values):.1f}"]
        )
    text = (
        f"Three workers in processes of their own, {EVENTS_PER_S} events a second, a fourth joins and leaves. Milliseconds "
        "from the generation's commit to its settlement:\n\n"
        + table(["reason", "generations", "p50", "p90", "worst"], rows)
    )
    names = {
        (True, False): "partitions that stay, within half a second of a generation",
        (True, True): "partitions that stay, while it settles",
        (False, True): "partitions that move, while it settles",
    }
    pauses = [
        [
            text,
            len(delays[key]),
            f"{median(delays[key]):.1f}",
            f"{percentile(delays[key], 0.99):.1f}",
            f"{max(delays[key]):.1f}",
        ]
        for key, text in names.items()
        if key in delays
    ]
    text += "\n\n" + _steps(steps)
    text += "\n\nMilliseconds from an event's INSERT to its handler's INSERT:\n\n"
    text += table(["", "events", "p50", "p99", "worst"], pauses)
    settled = [ms for _, ms in generations]
    calm, during = delays.get((True, False), [0.0]), delays.get((True, True), [0.0])
    goals = [
        Goal(
            "generation committed → settled, 3 workers under load, p50",
            "≤ 12 ms",
            f"{median(settled):.1f} ms",
            median(settled) <= 12,
        ),
        Goal(
            "pause of partitions that stay: p50 delay while a generation settles, against calm",
            "none",
            f"{median(during):.1f} ms, calm {median(calm):.1f} ms",
            median(during) <= 2 * median(calm) + 2,
        ),
    ]
    return Section("Rebalance", text, goals)
