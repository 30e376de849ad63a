"""Several projections that stand at the same position: one reads for all, against each reading for itself."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from bench.figures import Goal, Section, median, spread, table
from bench.scene import Child

if TYPE_CHECKING:
    from bench.scene import Scene

CASES = [(2, 500, 60_000), (5, 500, 30_000), (10, 500, 20_000), (2, 100, 40_000), (5, 100, 20_000), (10, 100, 10_000)]
"""How many projections, the batch size, and the events that each of them handles."""
MOST = CASES[2]


async def measure(scene: Scene) -> Section:
    """Take turns, together and each for itself, on the same log."""
    rows, goals = [], []
    for case in CASES:
        projections, batch, events = case
        rates = await _turns(scene, projections, batch, scene.scaled(events, 1000))
        ratios = [together / alone for together, alone in zip(rates[True], rates[False], strict=True)]
        rows.append([projections, batch, spread(rates[False], 0), spread(rates[True], 0), spread(ratios)])
        if case == MOST:
            goals.append(
                Goal(
                    f"reading together ÷ each for itself, {projections} projections, batch {batch}",
                    "> 1",
                    spread(ratios),
                    median(ratios) > 1,
                )
            )
    text = "One worker that catches up, no-op batch handlers; events per second, all projections together.\n\n"
    head = ["projections", "batch", "each for itself", "together", "together ÷ each for itself"]
    return Section("Reading for several projections", text + table(head, rows), goals)


async def _turns(scene: Scene, projections: int, batch: int, events: int) -> dict[bool, list[float]]:
    """Return the events per second of each turn."""
    url = scene.database(events=events)
    rates: dict[bool, list[float]] = {False: [], True: []}
    names = [f"several_{n}" for n in range(projections)]
    async with AsyncExitStack() as stack:
        workers = {
            shared: await stack.enter_async_context(Child("workers", url=url, replica_set="", names=names, batch=batch))
            for shared in rates
        }
        await workers[False].ask("read_alone")
        for turn in range(scene.repeat + 1):
            for shared, worker in workers.items():
                total = projections * events
                seconds = await worker.ask("catch_up", replica_set=f"turn_{turn}_{shared}", events=total)
                if turn:  # the first fills caches
                    rates[shared].append(total / seconds)
    scene.drop(url)
    return rates
