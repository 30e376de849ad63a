"""From COMMIT to the handler, at 50 events a second on an idle worker, against bare LISTEN and SELECT."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from bench.figures import Goal, Section, median, percentile, spread, table
from bench.scene import Child, connected

if TYPE_CHECKING:
    from bench.scene import Scene

EVENTS_PER_S = 50
TURN_S = 2.0
INSERT = (
    "INSERT INTO reactive_orch.events (aggregate_type, aggregate_id, aggregate_version, event_type) "
    "VALUES ('Order', gen_random_uuid()::text, 1, 'OrderPlaced') RETURNING global_position"
)


async def measure(scene: Scene) -> Section:
    """Take turns: each turn is one ratio."""
    return _section(await turns(scene))


async def turns(scene: Scene) -> dict[str, list[list[float]]]:
    """Return the delays in milliseconds of each turn: two seconds of the floor, two seconds of a worker."""
    floor_url, worker_url = scene.database(), scene.database()
    parts: dict[str, list[list[float]]] = {"floor": [], "called": [], "committed": []}
    async with (
        Child("floor", url=floor_url) as floor,
        Child("workers", url=worker_url, replica_set="latency", names=["clock"]) as worker,
    ):
        await worker.ask("start")
        await turn(floor_url, floor)
        await turn(worker_url, worker)
        for _ in range(max(scene.scaled(scene.repeat * 3), 3)):
            parts["floor"].append((await turn(floor_url, floor))["called"])
            answer = await turn(worker_url, worker)
            parts["called"].append(answer["called"])
            parts["committed"].append(answer["committed"])
    return parts


async def turn(url: str, child: Child, per_s: float = EVENTS_PER_S) -> dict[str, list[float]]:
    """Write for two seconds; return the delays in milliseconds, from the moment COMMIT was sent."""
    # Without waiting for the flush: it would be most of every figure, on either side.
    async with connected(url, synchronous_commit="off") as connection:
        sent: dict[str, int] = {}
        began = time.monotonic()
        for n in range(int(per_s * TURN_S)):
            await asyncio.sleep(max(began + n / per_s - time.monotonic(), 0))
            transaction = connection.transaction()
            await transaction.start()
            position = await connection.fetchval(INSERT)
            sent[str(position)] = time.monotonic_ns()
            await transaction.commit()
        await asyncio.sleep(0.3)
    answer = await child.ask("report")
    return {
        name: [(at - sent[position]) / 1e6 for position, at in times.items() if position in sent]
        for name, times in answer.items()
    }


def _section(parts: dict[str, list[list[float]]]) -> Section:
    everything = {name: [ms for turn in turns for ms in turn] for name, turns in parts.items()}
    names = {
        "floor": "floor: LISTEN, SELECT on bare asyncpg",
        "called": "handler called",
        "committed": "effects committed (swap, INSERT, COMMIT, flush)",
    }
    ratios = {
        name: [median(turn) / median(floor) for turn, floor in zip(parts[name], parts["floor"], strict=True)]
        for name in ("called", "committed")
    }
    rows = [
        [
            text,
            *(f"{percentile(everything[name], share):.2f}" for share in (0.5, 0.9, 0.99)),
            f"{max(everything[name]):.2f}",
            spread(ratios[name], 1) if name in ratios else "1",
        ]
        for name, text in names.items()
    ]
    p99 = [percentile(turn, 0.99) for turn in parts["called"]]
    goals = [
        Goal(
            "commit → handler called, p50 ÷ floor's", "≤ 5", spread(ratios["called"], 1), median(ratios["called"]) <= 5
        ),
        Goal(
            "commit → handler called, p99 (floor's: " + f"{percentile(everything['floor'], 0.99):.2f} ms)",
            "≤ 5 ms",
            f"{percentile(everything['called'], 0.99):.2f} ms, per turn {spread(p99)}",
            percentile(everything["called"], 0.99) <= 5,
        ),
        Goal(
            "commit → effects committed, p50 ÷ floor's",
            "≤ 10",
            spread(ratios["committed"], 1),
            median(ratios["committed"]) <= 10,
        ),
    ]
    text = (
        f"Milliseconds after COMMIT was sent, {EVENTS_PER_S} events a second, "
        f"{len(everything['called'])} events in turns of {TURN_S:g} s.\n\n"
        + table(["", "p50", "p90", "p99", "worst", "÷ floor, p50 by p50 of each turn"], rows)
    )
    return Section("Latency", text, goals)
