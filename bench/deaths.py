"""How long until what a dead or frozen worker had is handled elsewhere, and what fifty joins and leaves cost.

    python bench/deaths.py [--pg 15] [--kills 20] [--freezes 5] [--quick-freezes 10] [--report bench/RESULTS.md]

It makes a server of its own, writes about 400 events a second to all 64 partitions, and kills (SIGKILL) or freezes
(SIGSTOP) one of three worker processes. Measured from the signal, by the clock that worker, server and this program
share: the new generation, its settlement, the first event of a moved partition in another worker's transaction, and
the worst delay of any event.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import datetime as dt
import os
import signal
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import asyncpg

from bench.figures import Goal, goals_table
from integration_test.harness import projections
from integration_test.harness.cluster import Cluster
from integration_test.harness.report import machine, put_section
from reactive_orch import Config, NewEvent, Node, Worker, append

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

REPLICA_SET = "deaths"
RATE = 400
READY = "adopted in"
CROWD = 50
CROWD_PROCESSES = 5
KILLED = "SIGKILL, defaults"
WORST_MS = 40


@dataclass
class Measured:
    """Milliseconds from the signal."""

    noticed: list[float] = field(default_factory=list)
    settled: list[float] = field(default_factory=list)
    first: list[float] = field(default_factory=list)
    worst: list[float] = field(default_factory=list)


class Process:
    """A worker process; ready when it has adopted its first generation."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.lines: list[str] = []
        self._task = asyncio.create_task(self._read())
        self._seen = asyncio.Event()

    async def _read(self) -> None:
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            self.lines.append(line.decode(errors="replace").rstrip())
            self._seen.set()

    async def said(self, what: str, times: int = 1) -> None:
        """Wait for a line."""
        async with asyncio.timeout(60):
            while sum(what in line for line in self.lines) < times:
                if self.process.returncode is not None:
                    raise RuntimeError("\n".join(self.lines))
                self._seen.clear()
                await self._seen.wait()

    async def end(self) -> None:
        """Kill it."""
        if self.process.returncode is None:
            self.process.kill()
        await self.process.wait()
        await self._task


async def spawn(arguments: Sequence[str], name: str, *, stdin: int = asyncio.subprocess.DEVNULL) -> Process:
    """Start a Python process."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *arguments,
        env={**os.environ, projections.WORKER: name, projections.REPLICA_SET: REPLICA_SET, "PYTHONUNBUFFERED": "1"},
        stdin=stdin,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    return Process(process)


async def worker(url: str, name: str, heartbeat_s: float, stale_s: float) -> Process:
    """Start a worker and wait until it serves."""
    started = await spawn(
        [
            *("-m", "reactive_orch", "--database-url", url, "--replica-set", REPLICA_SET, "--http", "127.0.0.1:0"),
            *("--projection", "integration_test.harness.projections:handled_in_batches"),
            *("--heartbeat", f"{heartbeat_s:g}", "--stale-after", f"{stale_s:g}"),
        ],
        name,
    )
    await started.said(READY)
    return started


@contextlib.asynccontextmanager
async def load(url: str) -> AsyncIterator[None]:
    """Write at a steady rate, one event per transaction, to 500 keys in turn."""

    async def write(connection: asyncpg.Connection[Any]) -> None:
        started, written = time.monotonic(), 0
        while True:
            await append(
                connection, [NewEvent(aggregate_type="Load", aggregate_id=f"key-{written % 500}", event_type="Loaded")]
            )
            written += 1
            await asyncio.sleep(max(started + written / RATE - time.monotonic(), 0))

    connection = await asyncpg.connect(url)
    writing = asyncio.create_task(write(connection))
    try:
        yield
        if writing.done():
            writing.result()
    finally:
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)
        await connection.close()


async def settled(connection: asyncpg.Connection[Any], members: int, after: int = 0) -> Any:
    """Wait for a settled generation of that many members, newer than `after`; return its row."""
    async with asyncio.timeout(90):
        while True:
            row = await connection.fetchrow(_SETTLED, REPLICA_SET, members, after)
            if row is not None:
                return row
            await asyncio.sleep(0.02)


_SETTLED = """
SELECT g.* FROM reactive_orch.replica_sets r
JOIN reactive_orch.generations g ON g.replica_set = r.name AND g.number = r.generation
WHERE r.name = $1 AND cardinality(g.members) = $2 AND g.completed_at IS NOT NULL AND g.number > $3
"""


async def silence(url: str, number: signal.Signals, runs: int, heartbeat_s: float, stale_s: float) -> Measured:
    """Kill or freeze one of three workers, again and again."""
    measured = Measured()
    connection = await asyncpg.connect(url)
    workers = {name: await worker(url, name, heartbeat_s, stale_s) for name in ("a", "b", "c")}
    next_name = iter(f"w{n}" for n in range(10_000))
    try:
        async with load(url):
            for _ in range(runs):
                before = await settled(connection, 3)
                await asyncio.sleep(1.0)
                victim = min(workers)
                process = workers.pop(victim)
                at = dt.datetime.now(dt.UTC)
                process.process.send_signal(number)
                await _measure(connection, measured, victim, at, before["number"])
                await process.end()
                name = next(next_name)
                workers[name] = await worker(url, name, heartbeat_s, stale_s)
    finally:
        for process in workers.values():
            await process.end()
        await connection.execute("DELETE FROM reactive_orch.members")
        await connection.close()
    return measured


async def _measure(
    connection: asyncpg.Connection[Any], measured: Measured, victim: str, at: dt.datetime, before: int
) -> None:
    row = await settled(connection, 2, before)
    await asyncio.sleep(0.5)
    handled = await connection.fetchrow(_HANDLED_ELSEWHERE, victim, at)
    assert handled is not None, "an aggregate returns one row"
    first, worst = handled
    measured.noticed.append(_ms(row["created_at"] - at))
    measured.settled.append(_ms(row["completed_at"] - at))
    measured.first.append(_ms(first - at))
    measured.worst.append(_ms(worst))


def _ms(delta: dt.timedelta) -> float:
    return delta.total_seconds() * 1000


_HANDLED_ELSEWHERE = """
SELECT min(h.at), max(h.at - e.created_at)
FROM public.handled h JOIN reactive_orch.events e ON e.global_position = h.position
WHERE h.at > $2 AND h.worker <> $1 AND h.partition IN (
    SELECT m.partition FROM public.handled m WHERE m.worker = $1 AND m.at BETWEEN $2 - interval '800 ms' AND $2)
"""


@dataclass
class Crowd:
    """What fifty workers did."""

    settled_ms: float
    generations: int
    moves: int


async def crowd(url: str) -> dict[str, Crowd]:
    """Join fifty workers at once, end one process with ten of them, let the others leave at once."""
    connection = await asyncpg.connect(url)
    arguments = [str(Path(__file__)), "--crowd", url, str(CROWD // CROWD_PROCESSES)]
    processes = [await spawn(arguments, f"p{n}", stdin=asyncio.subprocess.PIPE) for n in range(CROWD_PROCESSES)]
    results = {}
    try:
        for process in processes:
            await process.said("ready")

        async def act(what: str, members: int, action: Callable[[], None]) -> None:
            sql = "SELECT coalesce(max(g.number), 0) FROM reactive_orch.generations g WHERE g.replica_set = $1"
            before = await connection.fetchval(sql, REPLICA_SET)
            at = dt.datetime.now(dt.UTC)
            action()
            row = await settled(connection, members, before) if members else await _empty(connection)
            counts = await connection.fetchrow(_COUNTS, REPLICA_SET, before)
            assert counts is not None, "an aggregate returns one row"
            end = row["completed_at"] or row["created_at"]
            results[what] = Crowd(_ms(end - at), counts["generations"], counts["moves"])
            await asyncio.sleep(1.5)

        def say(word: str, to: Sequence[Process]) -> None:
            for process in to:
                assert process.process.stdin is not None
                process.process.stdin.write(f"{word}\n".encode())

        each = CROWD // CROWD_PROCESSES
        await act(f"{CROWD} workers join at once", CROWD, lambda: say("go", processes))
        await act(f"{each} die at once (SIGKILL of their process)", CROWD - each, processes[0].process.kill)
        await act(f"{CROWD - each} leave at once", 0, lambda: say("stop", processes[1:]))
    finally:
        for process in processes:
            await process.end()
        await connection.close()
    return results


async def _empty(connection: asyncpg.Connection[Any]) -> Any:
    async with asyncio.timeout(60):
        while True:
            row = await connection.fetchrow(_LAST, REPLICA_SET)
            if row is not None:
                return row
            await asyncio.sleep(0.02)


_LAST = """
SELECT g.* FROM reactive_orch.generations g WHERE g.replica_set = $1 AND cardinality(g.members) = 0
AND NOT EXISTS (SELECT FROM reactive_orch.members m WHERE m.replica_set = $1) ORDER BY g.number DESC LIMIT 1
"""
_COUNTS = """
SELECT count(*) AS generations, sum(g.moved) AS moves FROM reactive_orch.generations g
WHERE g.replica_set = $1 AND g.number > $2
"""


async def be_crowd(url: str, count: int) -> None:
    """Run `count` workers in this process, from `go` to `stop` on standard input."""
    config = Config(database_url=url, connections_max=11)
    async with Node(config) as node:
        print("ready", flush=True)
        await anyio.to_thread.run_sync(sys.stdin.readline)
        workers = [Worker(node, REPLICA_SET, [projections.recorder("crowded")]) for _ in range(count)]
        async with anyio.create_task_group() as tasks:
            for one in workers:
                tasks.start_soon(one.run)
            await anyio.to_thread.run_sync(sys.stdin.readline)
            for one in workers:
                one.stop()


def text(where: str, silences: Sequence[tuple[str, Measured]], crowds: dict[str, Crowd]) -> str:
    """Return the section."""
    head = f"## Deaths, freezes, churn\n\nMade by `python bench/deaths.py`; {where}. Milliseconds: p50 / max."
    table = [
        "| event | runs | noticed | settled | first moved event elsewhere | worst event delay |",
        "|---|" * 1 + "---|" * 5,
    ]
    table += [
        f"| {what} | {len(m.first)} | {_pair(m.noticed)} | {_pair(m.settled)} | {_pair(m.first)} | {_pair(m.worst)} |"
        for what, m in silences
    ]
    many = ["| many at once | settled after | generations | partitions moved |", "|---|---|---|---|"]
    many += [f"| {what} | {c.settled_ms:.0f} | {c.generations} | {c.moves} |" for what, c in crowds.items()]
    goals = [goals_table([_goal(m)]) for what, m in silences if what == KILLED]
    return "\n\n".join([head, "\n".join(table), "\n".join(many), *goals, _OTHERS])


def _pair(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.0f} / {max(values):.0f}"


def _goal(kills: Measured) -> Goal:
    """Return what a SIGKILL may cost the event that it delays most."""
    worst = statistics.median(kills.worst)
    return Goal(
        "worst event delay at a SIGKILL, p50 of the kills", f"≤ {WORST_MS} ms", f"{worst:.0f} ms", worst <= WORST_MS
    )


_OTHERS = """
How long others take by default to give a dead worker's share to somebody else (documented, unless it says measured):

| | a killed worker | a frozen worker |
|---|---|---|
| Kafka consumer group | 45 s (`session.timeout.ms`) | 45 s |
| Axon tracking processor | 10 to 15 s (claim time-out) | 10 to 15 s |
| Akka cluster sharding | ≈ 45 s (failure detector, split brain resolver, lease) | ≈ 45 s |
| Commanded | 60 s | 60 s |
| pupsourcing-orchestrator (Go) | never (survivors do not look; measured) | never |
| its successor, segments and NOTIFY | 31.5 s (worst event delay, measured) | not measured |
""".strip()


async def main() -> None:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pg", default="15")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--freezes", type=int, default=5, help="with the defaults, 2 s and 10 s")
    parser.add_argument("--quick-freezes", type=int, default=10, help="with 0.3 s and 1 s")
    parser.add_argument("--report", type=Path)
    parser.add_argument("--crowd", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.crowd:
        await be_crowd(options.crowd[0], int(options.crowd[1]))
        return
    load_before = os.getloadavg()[0]
    with Cluster(options.pg) as cluster:
        plan = [
            (KILLED, signal.SIGKILL, options.kills, 2.0, 10.0),
            ("SIGSTOP, heartbeat 0.3 s, stale after 1 s", signal.SIGSTOP, options.quick_freezes, 0.3, 1.0),
            ("SIGSTOP, defaults (heartbeat 2 s, stale after 10 s)", signal.SIGSTOP, options.freezes, 2.0, 10.0),
        ]
        silences = [
            (what, await silence(await database(cluster, f"d{n}"), number, runs, heartbeat_s, stale_s))
            for n, (what, number, runs, heartbeat_s, stale_s) in enumerate(plan)
            if runs
        ]
        crowds = await crowd(await database(cluster, "crowd"))
    loads = f"{load_before:.1f} before the run, {os.getloadavg()[1]:.1f} after it"
    section = text(f"PostgreSQL {options.pg}, {machine()}, load of the machine {loads}", silences, crowds)
    print(section)
    if options.report:
        put_section(options.report, "deaths", section)


async def database(cluster: Cluster, name: str) -> str:
    """Make a database with everything in it; return its URL."""
    url = cluster.create_database(name)
    subprocess.run([sys.executable, "-m", "reactive_orch", "migrate", "--database-url", url], check=True)  # noqa: ASYNC221, S603
    connection = await asyncpg.connect(url)
    await projections.create_tables(connection)
    await connection.close()
    return url


if __name__ == "__main__":
    anyio.run(main)
