"""Fifty workers, 64 partitions, five projections, in five processes: all join at once, a process dies, all leave."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

from bench.figures import Section, table
from bench.scene import Child, connected

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from bench.scene import Scene

WORKERS, PROCESSES = 50, 5
PROJECTIONS = [f"several_{n}" for n in range(5)]
SETTLED = """
SELECT count(*) AS generations, sum(g.moved) AS moves,
       extract(epoch FROM max(g.completed_at) - min(g.noticed_at)) * 1000 AS ms,
       percentile_cont(0.5) WITHIN GROUP (ORDER BY extract(epoch FROM g.completed_at - g.created_at)) * 1000 AS settle_ms
FROM reactive_orch.generations g WHERE g.number > $1
"""
NOW = """
SELECT r.generation, cardinality(g.members) AS members, g.completed_at IS NOT NULL AS complete
FROM reactive_orch.replica_sets r JOIN reactive_orch.generations g ON g.replica_set = r.name AND g.number = r.generation
"""


async def measure(scene: Scene) -> Section:
    """Do each and read from the generations how it went."""
    url = scene.database()
    rows: list[list[object]] = []
    async with contextlib.AsyncExitStack() as stack:
        connection = await stack.enter_async_context(connected(url))
        arguments: dict[str, Any] = {
            "url": url,
            "replica_set": "many",
            "names": PROJECTIONS,
            "count": WORKERS // PROCESSES,
        }
        children = [await stack.enter_async_context(Child("workers", **arguments)) for _ in range(PROCESSES)]

        async def act(what: str, members: int, action: Callable[[], Awaitable[Any]]) -> None:
            before = await connection.fetchval("SELECT coalesce(max(number), 0) FROM reactive_orch.generations")
            acting = asyncio.ensure_future(action())
            async with asyncio.timeout(120):
                while True:
                    row = await connection.fetchrow(NOW)
                    if row and row["generation"] > before and row["members"] == members and row["complete"]:
                        break
                    await asyncio.sleep(0.02)
                await acting
            found = await connection.fetchrow(SETTLED, before)
            assert found is not None, "an aggregate returns one row"
            rows.append([what, found["generations"], found["moves"], f"{found['ms']:.0f}", f"{found['settle_ms']:.0f}"])

        async def all_of(what: str, which: list[Child]) -> None:
            await asyncio.gather(*(child.ask(what) for child in which))

        async def kill() -> None:
            children[0].kill()

        await act(f"{WORKERS} join at once", WORKERS, lambda: all_of("together", children))
        await act(f"{WORKERS // PROCESSES} die at once", WORKERS - WORKERS // PROCESSES, kill)
        await act("all others leave at once", 0, lambda: all_of("stop", children[1:]))
    head = ["", "generations", "partitions moved", "ms from the first notice to the last settlement", "of one, p50 ms"]
    cells = 64 * len(PROJECTIONS)
    return Section("Many workers", f"{cells} cells (64 partitions, 5 projections).\n\n" + table(head, rows))
