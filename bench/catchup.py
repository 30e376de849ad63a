"""Catching up with a backlog, against a bare loop that reads and saves, and one that only reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench.figures import Goal, Section, median, spread, table
from bench.scene import Child, loops

if TYPE_CHECKING:
    from bench.scene import Scene

CASES = [
    ("noop_batch", 100, 100_000, 0.6, "no-op, batch handler, batch 100"),
    ("noop_batch", 500, 100_000, 0.5, "no-op, batch handler, batch 500"),
    ("noop_each", 100, 100_000, 0.6, "no-op, per event, batch 100"),
    ("noop_each", 500, 100_000, 0.5, "no-op, per event, batch 500"),
    ("insert_batch", 500, 100_000, 0.85, "INSERT per event by unnest, batch 500"),
    ("insert_each", 500, 20_000, 0.8, "INSERT per event one by one, batch 500"),
]


READ_MODE, READ_BATCH, READ_GOAL = "noop_each", 500, 0.5
"""The case whose ratio to the loop that only reads has a goal."""


@dataclass(frozen=True, slots=True)
class Rates:
    """Events per second of each turn."""

    reading: list[float]
    bare: list[float]
    ours: list[float]

    @property
    def of_bare(self) -> list[float]:
        """The worker's, divided by the bare loop's."""
        return [ours / bare for ours, bare in zip(self.ours, self.bare, strict=True)]

    @property
    def of_reading(self) -> list[float]:
        """The worker's, divided by those of reading alone."""
        return [ours / reading for ours, reading in zip(self.ours, self.reading, strict=True)]


async def measure(scene: Scene) -> Section:
    """Take turns, bare loops and worker, on the same log."""
    rows, goals = [], []
    for loop, env in loops().items():
        for mode, batch, events, goal, text in CASES:
            rates = await _rates(scene, mode, batch, scene.scaled(events, 2000), env)
            shown = f"{text}{f', all on {loop}' if loop else ''}"
            columns = (spread(rates.reading, 0), spread(rates.bare, 0), spread(rates.ours, 0))
            rows.append([shown, *columns, spread(rates.of_bare), f"≥ {goal}", spread(rates.of_reading)])
            if not env:
                goals += _goals(mode, batch, goal, text, rates)
    text = (
        "Events per second. The bare loop reads by primary key, does the same statements and saves one row; the other one "
        "only reads: `SELECT * … LIMIT`, no handler, no transaction, nothing saved.\n\n"
    )
    head = ["", "reads only", "bare loop", "worker", "worker ÷ bare", "goal", "worker ÷ reads only"]
    return Section("Catch-up", text + table(head, rows), goals)


def _goals(mode: str, batch: int, goal: float, text: str, rates: Rates) -> list[Goal]:
    goals = [_goal(f"catch-up ÷ bare loop: {text}", goal, rates.of_bare)]
    if (mode, batch) == (READ_MODE, READ_BATCH):
        goals.append(_goal(f"catch-up ÷ a loop that only reads: {text}", READ_GOAL, rates.of_reading))
    return goals


def _goal(text: str, goal: float, ratios: list[float]) -> Goal:
    return Goal(text, f"≥ {goal}", spread(ratios), median(ratios) >= goal)


async def _rates(scene: Scene, mode: str, batch: int, events: int, env: dict[str, str]) -> Rates:
    url = scene.database(events=events)
    rates = Rates([], [], [])
    async with (
        Child("bare", env, url=url) as loop,
        Child("workers", env, url=url, replica_set="", names=[mode], batch=batch) as worker,
    ):
        for turn in range(scene.repeat + 1):
            reading = await loop.ask("read", batch=batch)
            bare = await loop.ask("catch_up", batch=batch, mode=mode)
            ours = await worker.ask("catch_up", replica_set=f"turn{turn}", events=events)
            if turn:  # the first fills caches
                rates.reading.append(events / reading)
                rates.bare.append(events / bare)
                rates.ours.append(events / ours)
    scene.drop(url)
    return rates
