"""Fifty projections in one worker and twenty events a second: each with transactions of its own, and as a group."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.figures import Goal, Section, median, percentile, spread, table
from bench.latency import turn
from bench.projections import MANY
from bench.scene import Child

if TYPE_CHECKING:
    from bench.scene import Scene

PER_S = 20
WAYS = {"apart": ("each alone", 12.0, 15.0), "together": ("as a group", 6.0, 8.0)}
"""Name → how it is shown, and the goals: milliseconds until all have committed, and of a processor for each event."""


async def measure(scene: Scene) -> Section:
    """Measure each way on a database of its own, in turns."""
    rows, goals = [], []
    medians: dict[str, list[float]] = {}
    for name, (text, most_ms, most_cpu_ms) in WAYS.items():
        delays, cpu_ms = await _delays(scene, name)
        medians[name] = [median(each) for each in delays]
        worst = [percentile(each, 0.99) for each in delays]
        rows.append([text, spread(medians[name], 1), spread(worst, 1), spread(cpu_ms, 1)])
        p50, cpu = median(medians[name]), median(cpu_ms)
        label = f"{MANY} projections, {text}"
        goals.append(Goal(f"{label}: all committed, p50", f"≤ {most_ms:g} ms", f"{p50:.1f} ms", p50 <= most_ms))
        goals.append(
            Goal(f"{label}: processor time per event", f"≤ {most_cpu_ms:g} ms", f"{cpu:.1f} ms", cpu <= most_cpu_ms)
        )
    ratios = [b / a for a, b in zip(medians["apart"], medians["together"], strict=True)]
    shown = (
        f"{MANY} projections whose handlers do nothing, in one worker, {PER_S} events a second. Milliseconds from COMMIT being sent "
        "until the last of them has committed, and of a processor, in the worker's process, for each event. "
        f"As a group ÷ each alone, p50: {spread(ratios)}.\n\n"
        + table(["", "all committed, p50", "p99", "processor time per event"], rows)
    )
    return Section("Many projections", shown, goals)


async def _delays(scene: Scene, name: str) -> tuple[list[list[float]], list[float]]:
    """Return for each turn the milliseconds of its events, and what each took of a processor."""
    url = scene.database()
    delays, cpu_ms = [], []
    names = [f"{name}_{n}" for n in range(MANY)]
    async with Child("workers", url=url, replica_set=name, names=names) as worker:
        await worker.ask("start")
        await turn(url, worker, per_s=PER_S)
        for _ in range(max(scene.scaled(scene.repeat), 3)):
            before = await worker.ask("processor_s")
            answer = await turn(url, worker, per_s=PER_S)
            used_s = await worker.ask("processor_s") - before
            delays.append([delay.sent for delay in answer["committed"]])
            cpu_ms.append(used_s * 1000 / len(answer["committed"]))
    scene.drop(url)
    return delays, cpu_ms
