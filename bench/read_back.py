"""Reading what one has written: from `append()` until `handled()` returns, for one request at a time and for many."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from bench.figures import Section, percentile, table
from bench.scene import Child, connected
from reactive_orch import NewEvent, append, handled

if TYPE_CHECKING:
    from bench.scene import Scene

REQUESTS = 300
AT_ONCE = (1, 10, 50)
KEYS = 1000


async def measure(scene: Scene) -> Section:
    """Take each number of requests at a time by turns."""
    url, rows = scene.database(), []
    async with Child("workers", url=url, replica_set="shop", names=["insert_each"]) as worker:
        await worker.ask("start")
        await _requests(url, 1, 50)
        for at_once in AT_ONCE:
            began = time.monotonic()
            found = await _requests(url, at_once, scene.scaled(REQUESTS, 50))
            rate = len(found) / (time.monotonic() - began)
            shares = (f"{percentile([part[at] for part in found], 0.5):.1f}" for at in (0, 1))
            rows.append([at_once, *shares, f"{percentile([sum(part) for part in found], 0.99):.1f}", f"{rate:,.0f}"])
    columns = ["requests at once", "append, p50, ms", "handled, p50, ms", "both, p99, ms", "requests/s"]
    text = (
        "Each request appends an event in a transaction of its own, waits until a projection that inserts a row has "
        "handled it, and is followed by the next; each has a connection. One worker.\n\n" + table(columns, rows)
    )
    return Section("Reading what one has written", text, [])


async def _requests(url: str, at_once: int, number: int) -> list[tuple[float, float]]:
    """Return of each request how long the append took, and how long what followed, in milliseconds."""
    found: list[tuple[float, float]] = []

    async def one_after_the_other(first: int) -> None:
        async with connected(url) as connection:
            for n in range(first, number, at_once):
                event = NewEvent(aggregate_type="Order", aggregate_id=str(n % KEYS), event_type="OrderPlaced")
                began = time.perf_counter()
                positions = await append(connection, [event])
                appended = time.perf_counter()
                await handled(connection, "shop", "insert_each", positions)
                found.append((1000 * (appended - began), 1000 * (time.perf_counter() - appended)))

    await asyncio.gather(*(one_after_the_other(first) for first in range(at_once)))
    return found
