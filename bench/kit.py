"""The kit for tests of projections: what a test pays for its database, for events, for a run, and a run of pytest."""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.figures import Goal, Section, median, spread, table
from reactive_orch import NewEvent, projection
from reactive_orch.testing import call, each_split
from reactive_orch.testing.databases import databases
from reactive_orch.testing.orch import Orch

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from bench.scene import Scene
    from reactive_orch import Event
    from reactive_orch.testing.databases import Databases

EVENTS = [NewEvent(aggregate_type="Order", aggregate_id=str(n), event_type="Placed") for n in range(10)]
TABLE = "CREATE TABLE orders (id text)"


@projection("orders")
async def orders(event: Event, tx: Any) -> None:
    """Write a row."""
    await tx.execute("INSERT INTO orders VALUES ($1)", event.aggregate_id)


async def measure(scene: Scene) -> Section:
    """Do what tests do, on the embedded server, as the fixture does."""
    times: dict[str, list[float]] = {}
    await asyncio.to_thread(_measured, times, 4 * scene.repeat)
    times["the plugin in a run of pytest that does not use it"] = [await _of_the_plugin() for _ in range(scene.repeat)]
    text = table(["", "ms"], [[what, spread([1000 * each for each in took], 1)] for what, took in times.items()])
    fixture, run = times["the fixture, of each test"], times["run, the first of a test"]
    goals = [
        Goal(
            "a database for a test",
            "≤ 50 ms",
            f"{spread([1000 * each for each in fixture], 0)} ms",
            median(fixture) <= 0.05,
        ),
        Goal(
            "run, the first of a test", "≤ 100 ms", f"{spread([1000 * each for each in run], 0)} ms", median(run) <= 0.1
        ),
    ]
    return Section("The kit for tests", f"With {len(EVENTS)} events.\n\n{text}", goals)


def _measured(times: dict[str, list[float]], tests: int) -> None:
    with tempfile.TemporaryDirectory() as meeting:
        began = time.perf_counter()
        with databases(Path(meeting), {}) as made, made.another(TABLE):
            times["server, template and database of the first test"] = [time.perf_counter() - began]
            for _ in range(tests):
                _test(made, times)


def _test(made: Databases, times: dict[str, list[float]]) -> None:
    began = time.perf_counter()
    with made.another(TABLE) as url:
        took = time.perf_counter() - began
        asyncio.run(_body(Orch(url), times))
        began = time.perf_counter()
    times.setdefault("the fixture, of each test", []).append(took + time.perf_counter() - began)


async def _body(orch: Orch, times: dict[str, list[float]]) -> None:
    async def timed(what: str, doing: Awaitable[object]) -> None:
        began = time.perf_counter()
        await doing
        times.setdefault(what, []).append(time.perf_counter() - began)

    await timed("given", orch.given(EVENTS))
    await timed("run, the first of a test", orch.run(orders))
    await orch.given(EVENTS)
    await timed("run, the next ones", orch.run(orders))
    await timed("fetch", orch.fetch("SELECT * FROM orders"))
    async with orch.transaction() as tx:
        await timed("call", call(orders, EVENTS, tx))
        await timed("each_split of 6 events, 32 ways", each_split(orders, EVENTS[:6], tx))


async def _of_the_plugin() -> float:
    """Return the seconds that it takes a process that has loaded pytest to load the plugin."""
    script = (
        "import pytest, time; began = time.perf_counter(); import reactive_orch.testing.plugin; "
        "print(time.perf_counter() - began)"
    )
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", script, stdout=asyncio.subprocess.PIPE)
    return float((await process.communicate())[0])
