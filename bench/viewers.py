"""What the page costs: statements of the server, and time of the worker, for no viewer, for one and for fifty; a kill."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.figures import Goal, Section, median, spread, table
from bench.scene import CliWorker, command_line, connected
from integration_test.harness.viewers import watching

if TYPE_CHECKING:
    from bench.scene import Scene

MEASURED_S = 20
VIEWERS = (0, 1, 50)
KILLS = 10
COUNTED = """
SELECT coalesce(sum(s.calls), 0)::bigint AS calls, coalesce(sum(s.total_exec_time), 0)::float8 AS ms
FROM pg_stat_statements s JOIN pg_database d ON d.oid = s.dbid WHERE d.datname = current_database()
"""
_TICKS = os.sysconf("SC_CLK_TCK")


async def measure(scene: Scene) -> Section:
    """Count beside an idle worker, and time from SIGKILL until a viewer has the new map."""
    seconds = scene.scaled(MEASURED_S, 5)
    costs = {number: await _cost(scene, number, seconds) for number in VIEWERS}
    kills_ms = await _kills(scene)
    rows = [[number, f"{calls:.2f}", f"{ms:.2f}", f"{cpu_ms:.1f}"] for number, (calls, ms, cpu_ms) in costs.items()]
    of_one, of_fifty = costs[1][0], costs[50][0]
    text = (
        f"An idle worker with one projection, {seconds} s each.\n\n"
        + table(["viewers", "statements/s", "server, ms/s", "worker, CPU ms/s"], rows)
        + f"\n\nFrom SIGKILL to a viewer that has the new map: {spread(kills_ms, 0)} ms, {len(kills_ms)} times."
    )
    goals = [
        Goal("fifty viewers ÷ one: statements/s", "≤ 1.1", f"{of_fifty / of_one:.2f}", of_fifty <= 1.1 * of_one),
        Goal("SIGKILL → map on the page, p50", "≤ 1 s", f"{median(kills_ms):.0f} ms", median(kills_ms) <= 1000),
    ]
    return Section("Viewers of the page", text, goals)


async def _cost(scene: Scene, viewers: int, seconds: int) -> tuple[float, float, float]:
    url = scene.database()
    async with connected(url) as connection, command_line(url, "viewers", ["noop_batch"]) as worker:
        await worker.said("adopted in")
        await connection.execute("CREATE EXTENSION IF NOT EXISTS pg_stat_statements")
        async with watching(_page(worker), viewers=viewers):
            await asyncio.sleep(5)  # what is done once, after the start
            before, cpu_s = await _look(connection), _cpu_s(worker.process.pid)
            await asyncio.sleep(seconds)
            after, cpu_after_s = await _look(connection), _cpu_s(worker.process.pid)
    calls, ms = (after[key] - before[key] for key in ("calls", "ms"))
    return (calls - 1) / seconds, ms / seconds, 1000 * (cpu_after_s - cpu_s) / seconds


async def _kills(scene: Scene) -> list[float]:
    url, found = scene.database(), []
    async with command_line(url, "viewers", ["noop_batch"]) as worker:
        await worker.said("adopted in")
        async with watching(_page(worker)) as (viewer,):
            for number in range(scene.scaled(KILLS, 3)):
                async with command_line(url, "viewers", ["noop_batch"]) as victim:
                    await viewer.shows(lambda page: len({*_owners(page)}) == 2)
                    await asyncio.sleep(1 + number * 0.1)  # at another time of the looks that are made by the clock
                    victim.process.kill()
                    killed = time.monotonic()
                    await viewer.shows(lambda page: len({*_owners(page)}) == 1)
                    found.append(1000 * (time.monotonic() - killed))
    return found


def _owners(page: dict[str, Any]) -> list[int]:
    (projection,) = page["projections"].values()
    owners: list[int] = projection["owners"]
    return owners


def _page(worker: CliWorker) -> str:
    return next(line.rpartition("page ")[2] for line in worker.lines if "page http" in line)


async def _look(connection: Any) -> Any:
    return await connection.fetchrow(COUNTED)


def _cpu_s(pid: int) -> float:
    user, system = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / _TICKS
