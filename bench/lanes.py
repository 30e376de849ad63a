"""Fresh events while a long backlog is caught up in a lane of its own, against fresh events alone."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bench.figures import Goal, Section, median, percentile, spread, table
from bench.load import load, one_key_per_partition
from bench.scene import Child, connected
from integration_test.harness.load import stand

if TYPE_CHECKING:
    from bench.scene import Scene

EVENTS = 2_000_000
AHEAD = frozenset(random.Random(64).sample(range(64), 32))
"""The partitions that have been handled, drawn at random; the others' share of the log is the backlog."""
RUNS = 2
FRESH_PER_S = 50
ALONE_S = 3.0
"""How long fresh events are measured alone, after the backlog."""
BACKLOG = "SELECT count(*) FROM reactive_orch.events WHERE partition <> ALL ($1::integer[]) AND global_position <= $2"
BEGAN = "SELECT min(at) FROM public.bench_handled WHERE position <= $1"
FRESH = """
SELECT extract(epoch FROM created_at - $1)::float8 AS at, extract(epoch FROM at - created_at)::float8 * 1000 AS ms
FROM public.bench_handled WHERE position > $2 ORDER BY position
"""
LEFT = """
SELECT max(t.at) AS at, (sum(count(*)) OVER () - sum(count(*)) OVER (ORDER BY max(t.at)))::integer AS events
FROM (SELECT extract(epoch FROM at - $1)::float8 AS at FROM public.bench_handled WHERE position <= $2) t
GROUP BY floor(t.at * 10) ORDER BY at
"""


@dataclass(frozen=True, slots=True)
class CaughtUp:
    """What was handled when, in seconds after the first old event."""

    fresh: list[tuple[float, float]]
    """When each was written, and how many milliseconds later it was handled."""
    left: list[tuple[float, int]]
    """When how much of the backlog was left, ten times a second."""

    def delays(self, *, alone: bool) -> list[float]:
        """Return the fresh events' milliseconds: beside the backlog, or alone after it."""
        return [ms for at, ms in self.fresh if (at > self.left[-1][0]) is alone and at > 0]


async def measure(scene: Scene) -> Section:
    """Divide the delays beside the backlog by those of the same worker after it."""
    runs = [await catch_up(scene, scene.scaled(EVENTS, 50_000)) for _ in range(scene.scaled(RUNS))]
    beside, alone = ([run.delays(alone=alone) for run in runs] for alone in (False, True))
    text = (
        f"One worker, {FRESH_PER_S} fresh events a second in {len(AHEAD)} partitions, drawn at random, that are up to date, while the "
        f"{runs[0].left[0][1]:,} old events of the others are caught up, which took "
        f"{spread([run.left[-1][0] for run in runs], 1)} s, and after it. Milliseconds from an event's INSERT to its "
        "handler's INSERT:\n\n"
        + table(
            ["fresh events", "", "p50", "p90", "p99", "worst"],
            [_row("beside the backlog", beside), _row("alone", alone)],
        )
    )
    ratios = [median(one) / median(other) for one, other in zip(beside, alone, strict=True)]
    goal = Goal("fresh events beside a backlog ÷ alone, p50", "≤ 5", spread(ratios, 1), median(ratios) <= 5)
    return Section("Lanes", text, [goal])


def _row(name: str, runs: list[list[float]]) -> list[str]:
    delays = [ms for run in runs for ms in run]
    shares = [f"{percentile(delays, share):.1f}" for share in (0.5, 0.9, 0.99)]
    return [name, str(len(delays)), *shares, f"{max(delays):.1f}"]


async def catch_up(scene: Scene, events: int) -> CaughtUp:
    """Let a worker begin with a log of which half of the partitions, any, were never handled, and write on meanwhile."""
    url = scene.database(events=events)
    async with connected(url) as connection, Child("workers", url=url, replica_set="lanes", names=["record"]) as worker:
        await stand(connection, "record", partitions=AHEAD, position=events, replica_set="lanes")
        keys = [key for partition, key in enumerate(await one_key_per_partition(connection)) if partition in AHEAD]
        async with load(url, FRESH_PER_S, keys, synchronous_commit="off"):
            await asyncio.sleep(0.5)
            await worker.ask("start")
            await worker.ask("until", events=await connection.fetchval(BACKLOG, list(AHEAD), events))
            await asyncio.sleep(ALONE_S)
        await asyncio.sleep(0.3)
        caught_up = await _recorded(connection, events)
    scene.drop(url)
    return caught_up


async def _recorded(connection: Any, events: int) -> CaughtUp:
    began = await connection.fetchval(BEGAN, events)
    fresh = await connection.fetch(FRESH, began, events)
    left = await connection.fetch(LEFT, began, events)
    return CaughtUp([(row["at"], row["ms"]) for row in fresh], [(row["at"], row["events"]) for row in left])
