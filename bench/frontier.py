"""What a look at the log's end costs, with few and with many connections."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Any

from bench.figures import Section, percentile, table
from bench.readers import INSERT
from bench.scene import connected

if TYPE_CHECKING:
    from bench.scene import Scene

CONNECTIONS = (0, 50, 200)
LOOKS = 500


async def measure(scene: Scene) -> Section:
    """Time the look, beside SELECT 1 on the same connection."""
    url = scene.database(events=scene.scaled(100_000, 5000))
    rows = []
    async with contextlib.AsyncExitStack() as stack:
        connection = await stack.enter_async_context(connected(url))
        idle = 0
        for count in CONNECTIONS:
            while idle < count:
                other = await stack.enter_async_context(connected(url))
                await other.execute("SELECT 1 FROM reactive_orch.events LIMIT 1")
                idle += 1
            for held in (0, 1, 20) if count else (0,):
                async with contextlib.AsyncExitStack() as holding:
                    for _ in range(held):
                        writer = await holding.enter_async_context(connected(url))
                        await holding.enter_async_context(writer.transaction())
                        await writer.execute(INSERT)
                    assert (
                        len(await connection.fetchval("SELECT holders FROM reactive_orch.observe_log('events')"))
                        == held
                    )
                    look = await _times(connection, "SELECT * FROM reactive_orch.observe_log('events')")
                    one = await _times(connection, "SELECT 1")
                rows.append([count, held, *(f"{percentile(t, s):.3f}" for t in (look, one) for s in (0.5, 0.99))])
    head = ["idle connections", "writers in flight", "look p50", "p99", "SELECT 1 p50", "p99"]
    return Section("Frontier", "Milliseconds, round trip included.\n\n" + table(head, rows))


async def _times(connection: Any, query: str) -> list[float]:
    times = []
    for _ in range(LOOKS):
        began = time.perf_counter()
        await connection.fetch(query)
        times.append((time.perf_counter() - began) * 1000)
    return times
