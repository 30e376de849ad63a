"""A day without an event, compressed: as many heartbeats as in a day, forty times as often."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.figures import Goal, Section, table
from bench.idle import HEARTBEAT_S as DEFAULT_S
from bench.load import INSERT
from bench.scene import command_line, connected

if TYPE_CHECKING:
    from bench.scene import CliWorker, Scene

WORKERS = 3
HEARTBEAT_S = 0.05
TIMES = DEFAULT_S / HEARTBEAT_S
SLICES = 12
SLICE_S = 86_400 / TIMES / SLICES
VACUUM = ("ALTER SYSTEM SET autovacuum_naptime = '2s'", "SELECT pg_reload_conf()")
"""As often for each heartbeat as the default of a minute for those of every two seconds, about."""
LOOK = """
SELECT (SELECT sum(pg_total_relation_size(c.oid)) FROM pg_class c WHERE c.relnamespace = 'reactive_orch'::regnamespace
        AND c.relkind = 'r')::bigint / 1024 AS kb,
       (SELECT sum(n_dead_tup) FROM pg_stat_user_tables)::bigint AS dead,
       (SELECT array_agg(pid ORDER BY pid) FROM pg_stat_activity WHERE application_name LIKE 'reactive_orch:%') AS backends,
       (SELECT max(number) FROM reactive_orch.generations) AS generation,
       (pg_current_wal_lsn() - '0/0'::pg_lsn)::bigint AS wal
"""
HANDLED = "SELECT min(position) >= $1 FROM reactive_orch.checkpoints WHERE replica_set = 'day' AND position > $1 - 1"


async def measure(scene: Scene) -> Section:
    """Look at what may grow, twelve times; then append one event."""
    url = scene.database()
    rows: list[list[object]] = []
    async with AsyncExitStack() as stack:
        connection = await stack.enter_async_context(connected(url))
        for statement in VACUUM:
            await connection.execute(statement)
        started = [command_line(url, "day", ["noop_batch"], "--heartbeat", str(HEARTBEAT_S)) for _ in range(WORKERS)]
        workers = [await stack.enter_async_context(each) for each in started]
        for worker in workers:
            await worker.said("adopted in")
        await asyncio.sleep(10)  # until all have settled, and connections that idle are closed
        looks = [await _look(connection, workers)]
        for n in range(SLICES):
            await asyncio.sleep(SLICE_S * scene.scale)
            looks.append(await _look(connection, workers))
            rows.append(_row(n, *looks[-2:]))
        first_ms = await _first_event(connection)
    return _section(rows, looks, first_ms, scene.scale)


async def _look(connection: Any, workers: list[CliWorker]) -> dict[str, Any]:
    statuses = [Path(f"/proc/{worker.process.pid}/status").read_text() for worker in workers]
    memory = max(int(status.partition("VmRSS:")[2].split()[0]) for status in statuses) / 1024
    return {**await connection.fetchrow(LOOK), "lines": sum(len(worker.lines) for worker in workers), "memory": memory}


def _row(n: int, before: dict[str, Any], now: dict[str, Any]) -> list[object]:
    anew = len(set(now["backends"]) - set(before["backends"]))
    wal = (now["wal"] - before["wal"]) / 1024
    hours = f"{(n + 1) * 24 / SLICES:g}"
    return [hours, f"{now['memory']:.1f}", now["kb"], now["dead"], anew, f"{wal:,.0f}", now["lines"] - before["lines"]]


async def _first_event(connection: Any) -> float:
    """Append an event; return the milliseconds until its checkpoint has moved."""
    began = time.monotonic()
    await connection.execute(INSERT, "the first", 1)
    position = await connection.fetchval("SELECT max(global_position) FROM reactive_orch.events")
    async with asyncio.timeout(30):
        while not await connection.fetchval(HANDLED, position):
            await asyncio.sleep(0.001)
    return (time.monotonic() - began) * 1000


def _section(rows: list[list[object]], looks: list[dict[str, Any]], first_ms: float, scale: float) -> Section:
    first, last = looks[1], looks[-1]
    heartbeats = 86_400 / TIMES * scale / HEARTBEAT_S
    text = (
        f"{WORKERS} workers, each {heartbeats:,.0f} heartbeats, {TIMES:g} times as often as by default, and autovacuum as often for each of "
        f"them; timers that are no setting go at their own pace. Afterwards the first event took {first_ms:.0f} ms until its checkpoint "
        "had moved.\n\n"
    )
    head = [
        "hours",
        "memory of the largest, MB",
        "schema, kB",
        "dead rows",
        "connections made anew",
        "WAL, kB",
        "log lines",
    ]
    grown = last["memory"] - first["memory"]
    goals = [
        Goal("a day of idling: memory, last slice − first", "≤ 1 MB", f"{grown:.1f} MB", grown <= 1),
        Goal("a day of idling: schema, last slice ÷ first", "≤ 1.1", f"{last['kb'] / first['kb']:.2f}", last["kb"] <= 1.1 * first["kb"]),
        Goal("a day of idling: log lines, rebalances", "none", f"{last['lines'] - looks[0]['lines']}, {last['generation'] - looks[0]['generation']}", (last["lines"], last["generation"]) == (looks[0]["lines"], looks[0]["generation"])),
    ]  # fmt: skip
    return Section("A day of idling", text + table(head, rows), goals)
