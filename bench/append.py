"""What the bell costs the writers: 1, 8, 32 of them, with none, 1, 4, 8 readers at work.

The writers are pgbench's, one INSERT a transaction, synchronous_commit on. The readers are workers of this package, in
two processes, that handle every event. On a machine with few cores part of the loss is theirs: they need a processor
as the writers do. The column "polling readers" shows how much: the same readers on a log whose trigger is dropped.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import re
from typing import TYPE_CHECKING

from bench.figures import Goal, Section, median, spread, table
from bench.scene import Child, connected

if TYPE_CHECKING:
    from bench.scene import Scene

WRITERS = (1, 8, 32)
READERS = (1, 4, 8)
TURN_S = 3
INSERT = (
    "INSERT INTO reactive_orch.events (aggregate_type, aggregate_id, aggregate_version, event_type, payload) "
    "VALUES ('Order', gen_random_uuid()::text, 1, 'OrderPlaced', '{}');\n"
)


async def measure(scene: Scene) -> Section:
    """Take turns: bare table, trigger and nobody, trigger and readers, at two flush times."""
    script = scene.server.directory / "append.sql"
    script.write_text(INSERT)
    script.chmod(0o644)
    parts, goals = [], []
    for delay, shown in (("0", "the disk's own flush"), ("1000", "flushes of at least 1 ms (commit_delay)")):
        await _set_delay(scene, delay)
        flush = await _flush_ms(scene)
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
    await _set_delay(scene, "0")
    return Section("Appending", (__doc__ or "").split("\n\n", 1)[1] + "\n" + "\n\n".join(parts), goals)


async def _set_delay(scene: Scene, microseconds: str) -> None:
    async with connected(scene.server.url()) as connection:
        await connection.execute(f"ALTER SYSTEM SET commit_delay = {microseconds}")
        await connection.execute("ALTER SYSTEM SET commit_siblings = 0")
        await connection.execute("SELECT pg_reload_conf()")
    await asyncio.sleep(0.2)


async def _flush_ms(scene: Scene) -> float:
    import time

    url = scene.database()
    times = []
    async with connected(url) as connection:
        for n in range(100):
            began = time.perf_counter()
            await connection.execute("UPDATE public.bench_checkpoint SET position = $1 WHERE id = 1", n)
            times.append((time.perf_counter() - began) * 1000)
    scene.drop(url)
    return median(times)


async def _rates(scene: Scene, writers: int) -> dict[str, list[float]]:
    """Return the transactions per second of each turn, by who reads."""
    rates: dict[str, list[float]] = {}
    bare, silent, alone = scene.database(), scene.database(), scene.database()
    for url in (bare, silent):
        async with connected(url) as connection:
            await connection.execute("DROP TRIGGER ring ON reactive_orch.events")
    async with connected(alone) as connection:
        await connection.execute("SELECT reactive_orch.arm_bell(0)")
    read = {count: scene.database() for count in READERS}
    async with contextlib.AsyncExitStack() as stack:
        one = await stack.enter_async_context(
            Child("workers", url=silent, replica_set="silent", names=["noop_batch"], batch=500)
        )
        await one.ask("start")
        for count, url in read.items():
            for n in range(min(count, 2)):
                own = count // min(count, 2)
                child = Child("workers", url=url, replica_set="append", names=["noop_batch"], batch=500, count=own)
                await (await stack.enter_async_context(child)).ask("start")
                del n
        turns = [("bare", bare), ("trigger, nobody", alone), ("polling reader", silent)]
        turns += [(f"{count} worker{'s' * (count > 1)}", url) for count, url in read.items()]
        for _ in range(max(scene.scaled(scene.repeat), 1)):
            for name, url in turns:
                rates.setdefault(name, []).append(await _pgbench(scene, url, writers))
                await _drained(url, name)
    for url in (bare, silent, alone, *read.values()):
        scene.drop(url)
    return rates


async def _pgbench(scene: Scene, url: str, writers: int) -> float:
    seconds = scene.scaled(TURN_S)
    process = await asyncio.create_subprocess_exec(
        str(scene.server.programs / "pgbench"),
        *("-n", "-c", str(writers), "-j", str(min(writers, 2)), "-T", str(seconds), "-M", "prepared"),
        *("-f", str(scene.server.directory / "append.sql"), url),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output = (await process.communicate())[0].decode()
    found = re.search(r"tps = ([\d.]+)", output)
    if found is None:
        raise RuntimeError(output)
    return float(found[1])


async def _drained(url: str, name: str) -> None:
    """Wait until the readers have read it all, so that they do not disturb the next turn."""
    if name in {"bare", "trigger, nobody"}:
        return
    async with connected(url) as connection:
        for _ in itertools.repeat(None, 600):
            behind = await connection.fetchval(
                "SELECT (SELECT max(global_position) FROM reactive_orch.events)"
                " - coalesce((SELECT max(position) FROM reactive_orch.checkpoints), 0)"
            )
            if not behind:
                return
            await asyncio.sleep(0.1)
