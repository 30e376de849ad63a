"""Catching up with a backlog, against a bare loop that reads and saves."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

from bench.figures import Goal, Section, median, spread, table
from bench.scene import ROOT, Child

if TYPE_CHECKING:
    from bench.scene import Scene

CASES = [
    ("noop_batch", 100, 100_000, 0.6, "no-op, batch handler, batch 100"),
    ("noop_batch", 500, 100_000, 0.5, "no-op, batch handler, batch 500"),
    ("noop_each", 100, 100_000, 0.6, "no-op, per event, batch 100"),
    ("noop_each", 500, 100_000, 0.5, "no-op, per event, batch 500"),
    ("insert_batch", 500, 100_000, 0.8, "INSERT per event by unnest, batch 500"),
    ("insert_each", 500, 20_000, 0.8, "INSERT per event one by one, batch 500"),
]
UVLOOP = "uvloop==0.23.0"


async def measure(scene: Scene) -> Section:
    """Take turns, bare loop and worker, on the same log."""
    rows, goals = [], []
    for env in ({}, _with_uvloop()):
        for mode, batch, events, goal, text in CASES:
            bare, ours = await _pairs(scene, mode, batch, scene.scaled(events, 2000), env)
            ratios = [b / o for b, o in zip(bare, ours, strict=True)]
            count = scene.scaled(events, 2000)
            shown = f"{text}{', both on uvloop' if env else ''}"
            rates = [count / seconds for seconds in ours]
            bare_rates = [count / seconds for seconds in bare]
            rows.append([shown, spread(bare_rates, 0), spread(rates, 0), spread(ratios), f"≥ {goal}"])
            if not env:
                goals.append(Goal(f"catch-up ÷ bare loop: {text}", f"≥ {goal}", spread(ratios), median(ratios) >= goal))
    text = "Events per second; the bare loop reads by primary key, does the same statements and saves one row.\n\n"
    return Section("Catch-up", text + table(["", "bare loop", "worker", "worker ÷ bare", "goal"], rows), goals)


def _with_uvloop() -> dict[str, str]:
    """Return the environment of a process that has uvloop, beside what is installed: every other process goes without."""
    target = ROOT / ".bench" / "uvloop"
    if not target.exists():
        pip = (sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
        subprocess.run([*pip, "--target", str(target), UVLOOP], check=True)  # noqa: S603
    return {"UVLOOP": "1", "PYTHONPATH": str(target)}


async def _pairs(
    scene: Scene, mode: str, batch: int, events: int, env: dict[str, str]
) -> tuple[list[float], list[float]]:
    """Return the seconds of each turn."""
    url = scene.database(events=events)
    bare: list[float] = []
    ours: list[float] = []
    async with (
        Child("bare", env, url=url) as loop,
        Child("workers", env, url=url, replica_set="", names=[mode], batch=batch) as worker,
    ):
        for turn in range(scene.repeat + 1):
            seconds = await loop.ask("catch_up", batch=batch, mode=mode)
            own = await worker.ask("catch_up", replica_set=f"turn{turn}", events=events)
            if turn:  # the first fills caches
                bare.append(seconds)
                ours.append(own)
    scene.drop(url)
    return bare, ours
