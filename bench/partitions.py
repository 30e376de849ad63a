"""A log of 1024 partitions against one of 64: from INSERT to the handler, and what an idle worker asks of the server."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING

from bench.figures import Goal, Section, median, percentile, spread, table
from bench.latency import EVENTS_PER_S, INSERT
from bench.scene import Child, connected, migrated

if TYPE_CHECKING:
    from collections.abc import Callable

    from bench.scene import Scene

FEW, MANY = 64, 1024
TURN_S = 2.0
IDLE_S = 10
TRANSACTIONS = "SELECT xact_commit FROM pg_stat_database WHERE datname = $1"


async def measure(scene: Scene) -> Section:
    """Take turns: each pair of turns is one ratio. Then both are idle at once."""
    urls = {count: _database(scene, count) for count in (FEW, MANY)}
    called: dict[int, list[list[float]]] = {count: [] for count in urls}
    async with contextlib.AsyncExitStack() as stack:
        workers = {count: await stack.enter_async_context(_worker(url)) for count, url in urls.items()}
        for count, worker in workers.items():
            await worker.ask("start")
            await _turn(urls[count], worker)
        for _ in range(scene.scaled(scene.repeat * 2, 3)):
            for count, worker in workers.items():
                called[count].append(await _turn(urls[count], worker))
        idle = await _idle(scene, urls)
    return _section(called, idle)


def _database(scene: Scene, partitions: int) -> str:
    url = scene.server.create_database(f"bench_partitions_{partitions}")
    return migrated(url, "--partitions", str(partitions))


async def _turn(url: str, worker: Child) -> list[float]:
    """Write for two seconds; return the milliseconds from the moment each INSERT was sent until the handler was called."""
    committed: dict[str, int] = {}
    async with connected(url, synchronous_commit="off") as connection:
        began = time.monotonic()
        for n in range(int(EVENTS_PER_S * TURN_S)):
            await asyncio.sleep(max(began + n / EVENTS_PER_S - time.monotonic(), 0))
            sent = time.monotonic_ns()
            committed[str(await connection.fetchval(INSERT))] = sent
        await asyncio.sleep(0.3)
    called = (await worker.ask("report"))["called"]
    return [(at - committed[position]) / 1e6 for position, at in called.items() if position in committed]


def _worker(url: str) -> Child:
    return Child("workers", url=url, replica_set="partitions", names=["clock"])


async def _idle(scene: Scene, urls: dict[int, str]) -> dict[int, float]:
    """Return the transactions a second of each database while nothing is written, from another database."""
    seconds = scene.scaled(IDLE_S, 5)
    names = {count: url.rpartition("/")[2] for count, url in urls.items()}
    async with connected(scene.database()) as connection:
        await connection.execute("ALTER SYSTEM SET autovacuum = off")  # its own transactions are counted, too
        await connection.execute("SELECT pg_reload_conf()")
        await asyncio.sleep(6)  # what was read without an event is saved within five seconds
        before = {count: await connection.fetchval(TRANSACTIONS, name) for count, name in names.items()}
        await asyncio.sleep(seconds)
        after = {count: await connection.fetchval(TRANSACTIONS, name) for count, name in names.items()}
        await connection.execute("ALTER SYSTEM RESET autovacuum")
        await connection.execute("SELECT pg_reload_conf()")
    return {count: (after[count] - before[count]) / seconds for count in names}


def _section(called: dict[int, list[list[float]]], idle: dict[int, float]) -> Section:
    goals = [
        _goal("p50", called, median),
        _goal("p99", called, lambda delays: percentile(delays, 0.99)),
        _of_idle(idle),
    ]
    everything = {count: [ms for delays in turns for ms in delays] for count, turns in called.items()}
    rows = [
        [
            count,
            *(f"{percentile(all_, share):.2f}" for share in (0.5, 0.9, 0.99)),
            f"{max(all_):.2f}",
            f"{idle[count]:.2f}",
        ]
        for count, all_ in everything.items()
    ]
    text = (
        "One worker for each log, 50 events a second in turns of two seconds. Milliseconds from INSERT to the handler; "
        "then transactions a second while nothing is written:\n\n"
        + table(["partitions", "p50", "p90", "p99", "worst", "idle, transactions/s"], rows)
    )
    return Section("Many partitions", text, goals)


def _goal(name: str, called: dict[int, list[list[float]]], figure: Callable[[list[float]], float]) -> Goal:
    ratios = [figure(many) / figure(few) for many, few in zip(called[MANY], called[FEW], strict=True)]
    return Goal(f"1024 partitions ÷ 64: live {name}", "≤ 1.2", spread(ratios), median(ratios) <= 1.2)


def _of_idle(idle: dict[int, float]) -> Goal:
    ratio = idle[MANY] / max(idle[FEW], 0.01)
    return Goal("1024 partitions ÷ 64: transactions while idle", "≤ 1.2", f"{ratio:.2f}", ratio <= 1.2)
