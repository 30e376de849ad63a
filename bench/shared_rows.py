"""Handlers of several workers that write the same rows, against one worker, and against one sorted statement a batch."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Any, TypeAlias

from bench.figures import Goal, Section, median, spread, table
from bench.scene import Child, connected

if TYPE_CHECKING:
    from bench.scene import Scene

EVENTS, ROWS = 5000, 200
WORKERS = (1, 3, 8)
HANDLERS = {
    "balance_each": "a statement for each event",
    "balance_batch": "a statement for each batch, its rows in no order",
    "balance_sorted": "a statement for each batch, sorted by its rows",
}
GOAL = 1.3
FILL = """
INSERT INTO reactive_orch.events (aggregate_type, aggregate_id, aggregate_version, event_type, payload)
SELECT 'Order', 'order-' || $3 || '-' || n, 1, 'OrderPlaced',
       convert_to('{"customer": "' || (hashtext($3 || n) & 2147483647) % $2::integer || '"}', 'UTF8')
FROM generate_series(1, $1::integer) AS n
"""
DEADLOCKS = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"


Seconds: TypeAlias = "dict[tuple[str, int], list[float]]"
"""Handler, workers → the seconds of each turn."""


async def measure(scene: Scene) -> Section:
    """Let each number of workers handle the same events, in turns."""
    events = scene.scaled(EVENTS, 500)
    seconds: Seconds = {(name, workers): [] for name in HANDLERS for workers in WORKERS}
    deadlocks: dict[tuple[str, int], list[int]] = {case: [] for case in seconds}
    for _ in range(scene.repeat):
        for case, times in seconds.items():
            took, met = await handle(scene, *case, events)
            times.append(took)
            deadlocks[case].append(met)
    text = (
        f"{events:,} events of as many orders, written at once; handlers count them in {ROWS} rows, one a customer. Workers are "
        "processes of their own; their role may set `deadlock_timeout`. Seconds until all are handled, and deadlocks on the way:\n\n"
    )
    rows = [
        [
            HANDLERS[name],
            workers,
            spread(times),
            _ratio(seconds, (name, workers)),
            _most(deadlocks[name, workers]),
        ]
        for (name, workers), times in seconds.items()
    ]
    head = ["the handler sends", "workers", "seconds", "÷ one worker", "deadlocks"]
    return Section("Shared rows", text + table(head, rows), [_goal(seconds, name) for name in HANDLERS])


def _ratios(seconds: Seconds, case: tuple[str, int]) -> list[float]:
    return [many / one for many, one in zip(seconds[case], seconds[case[0], 1], strict=True)]


def _ratio(seconds: Seconds, case: tuple[str, int]) -> str:
    return "" if case[1] == 1 else spread(_ratios(seconds, case))


def _most(counts: list[int]) -> str:
    return f"{median(counts):g} (most {max(counts)})" if max(counts) else "0"


def _goal(seconds: Seconds, name: str) -> Goal:
    ratios = _ratios(seconds, (name, 3))
    figure = f"{EVENTS:,} events, {ROWS} shared rows, {HANDLERS[name]}: three workers ÷ one"
    return Goal(figure, f"≤ {GOAL}", spread(ratios), median(ratios) <= GOAL)


async def handle(scene: Scene, name: str, count: int, events: int) -> tuple[float, int]:
    """Return the seconds from the commit of the events to the last one's, and how many deadlocks there were."""
    url = scene.database()
    arguments: dict[str, Any] = {"url": url, "replica_set": "shared", "names": [name]}
    async with contextlib.AsyncExitStack() as stack:
        connection = await stack.enter_async_context(connected(url))
        workers = [await stack.enter_async_context(Child("workers", **arguments)) for _ in range(count)]
        for worker in workers:
            await worker.ask("start")
        # Twice: the first events bring plans and pages.
        for number in range(2):
            await connection.execute(FILL, events if number else 2 * count, ROWS, f"{number}")
            began = time.monotonic()
            while await _counted(connection) < (events if number else 0) + 2 * count:
                await asyncio.sleep(0.01)
            seconds = time.monotonic() - began
        for worker in workers:
            await worker.ask("stop")
        await asyncio.sleep(0.1)
        deadlocks = await connection.fetchval(DEADLOCKS)
    scene.drop(url)
    return seconds, deadlocks


async def _counted(connection: Any) -> int:
    return int(await connection.fetchval("SELECT coalesce(sum(events), 0) FROM public.bench_balances"))
