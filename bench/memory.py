"""The memory of a worker with 64 partitions and 10 projections that catches up at batch 500."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

from bench.figures import Goal, Section
from bench.scene import command_line, connected

if TYPE_CHECKING:
    from bench.scene import Scene

PROJECTIONS = [f"several_{n}" for n in range(10)]
EVENTS = 50_000
LIMIT_MB = 120
BEHIND = "SELECT count(DISTINCT projection) FROM reactive_orch.checkpoints WHERE position > $1"


async def measure(scene: Scene) -> Section:
    """Read the kernel's high-water mark after the backlog."""
    events = scene.scaled(EVENTS, 5000)
    url = scene.database(events=events)
    async with connected(url) as connection, command_line(url, "memory", PROJECTIONS, "--batch", "500") as worker:
        await worker.said("adopted in")
        async with asyncio.timeout(300):
            while await connection.fetchval(BEHIND, events - 2000) < len(PROJECTIONS):
                await asyncio.sleep(0.2)
        status = Path(f"/proc/{worker.process.pid}/status").read_text()
    peak, now = (int(status.partition(f"{name}:")[2].split()[0]) / 1024 for name in ("VmHWM", "VmRSS"))
    text = f"After {events:,} events through each of ten projections: {now:.0f} MB resident, {peak:.0f} MB at the most."
    return Section(
        "Memory",
        text,
        [
            Goal(
                "memory, 64 partitions, 10 projections, batch 500",
                f"≤ {LIMIT_MB} MB",
                f"{peak:.0f} MB",
                peak <= LIMIT_MB,
            )
        ],
    )
