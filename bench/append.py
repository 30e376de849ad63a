"""What the bell costs the writers: 1, 8, 32 of them, with none, 1, 4, 8 readers at work.

The writers are pgbench's, one INSERT a transaction, synchronous_commit on. The readers are workers of this package, in
two processes, that handle every event. On a machine with few cores most of the loss is theirs: they need a processor
as the writers do (one takes about a quarter of a core, its backends included); "trigger, nobody" is the disarmed bell's
part of it.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from bench.figures import Goal, Section, median, spread, table
from bench.scene import Child, connected
from bench.writers import FLUSHES, drained, flush_ms, rate_of, set_flush

if TYPE_CHECKING:
    from bench.scene import Scene

WRITERS = (1, 8, 32)
READERS = (1, 4, 8)
TURN_S = 3


async def measure(scene: Scene) -> Section:
    """Take turns: bare table, trigger and nobody, trigger and readers, at two flush times."""
    parts, goals = [], []
    for delay, shown in FLUSHES:
        await set_flush(scene, delay)
        flush = await flush_ms(scene)
        rows = []
        for writers in WRITERS:
            tps = await _rates(scene, writers)
            bare = tps.pop("bare")
            ratios = {name: [b / a for a, b in zip(bare, rates, strict=True)] for name, rates in tps.items()}
            rows.append([writers, spread(bare, 0), *(spread(values) for values in ratios.values())])
            goals += [
                Goal(
                    f"appends, {writers} writers, {name} ÷ no trigger, nobody; {shown}",
                    "≥ 0.8",
                    spread(ratios[name]),
                    median(ratios[name]) >= 0.8,
                )
                for name in ("1 worker",)
            ]
            head = ["writers", "no trigger, nobody: tx/s", *(f"{name} ÷" for name in ratios)]
        parts.append(f"With {shown} (a commit alone: {flush:.2f} ms):\n\n" + table(head, rows))
    await set_flush(scene, "0")
    return Section("Appending", (__doc__ or "").split("\n\n", 1)[1] + "\n" + "\n\n".join(parts), goals)


async def _rates(scene: Scene, writers: int) -> dict[str, list[float]]:
    """Return the transactions per second of each turn, by who reads."""
    rates: dict[str, list[float]] = {}
    bare, alone = scene.database(), scene.database()
    async with connected(bare) as connection:
        await connection.execute("DROP TRIGGER ring ON reactive_orch.events")
    async with connected(alone) as connection:
        await connection.execute("SELECT reactive_orch.arm_bell('events', 0)")
    read = {count: scene.database() for count in READERS}
    async with contextlib.AsyncExitStack() as stack:
        for count, url in read.items():
            for n in range(min(count, 2)):
                own = count // min(count, 2)
                child = Child("workers", url=url, replica_set="append", names=["noop_batch"], batch=500, count=own)
                await (await stack.enter_async_context(child)).ask("start")
                del n
        turns = [("bare", bare), ("trigger, nobody", alone)]
        turns += [(f"{count} worker{'s' * (count > 1)}", url) for count, url in read.items()]
        for _ in range(max(scene.scaled(scene.repeat), 1)):
            for name, url in turns:
                rates.setdefault(name, []).append(await rate_of(scene, url, writers, scene.scaled(TURN_S)))
                if name not in {"bare", "trigger, nobody"}:
                    await drained(url)
    for url in (bare, alone, *read.values()):
        scene.drop(url)
    return rates
