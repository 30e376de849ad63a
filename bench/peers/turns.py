"""What is measured: each function takes turns, one contestant after the other, and returns what it saw."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from bench.figures import median
from bench.peers.contestants import Process, impatient
from bench.scene import connected

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import AsyncIterator

    import asyncpg

    from bench.peers.contestants import Contestant, Field

CASES = [("noop", 1), ("insert", 1), ("insert_many", 1), ("insert", 2)]
WRITERS = (1, 8)
EVENTS_PER_S = 50
TRICKLE = 100
WARM_UP = 10
WRITE_S = 1.5
LOAD_S = 4.0
KILL_AFTER = 0.3
"""This share of the load is handled by then."""
GIVE_UP_S = 90.0
BUSY_S = 6.0
"""A load of 4 s is handled by then; what still waits is waiting for a time-out."""


@dataclass
class Turn:
    """A database, workers that wait, and a process to write from."""

    contestant: Contestant
    url: str
    workers: list[Process]
    names: list[str]
    writer: Process
    connection: asyncpg.Connection[Any]

    async def handled(self, events: float) -> None:
        """Wait until the workers have handled so many events."""
        while sum([(await worker.ask("progress"))["handled"] for worker in self.workers]) < events:
            await asyncio.sleep(0.01)

    async def finished(self, events: int) -> None:
        """Wait until all events have been handled and nothing is left to do."""
        async with asyncio.timeout(GIVE_UP_S):
            await self.handled(events)
            while await self.connection.fetchval(self.contestant.unfinished):
                await asyncio.sleep(0.01)

    async def ended(self) -> list[str]:
        """Return the errors that workers ended with."""
        return [error for worker in self.workers if (error := (await worker.ask("progress"))["ended"])]


@contextlib.asynccontextmanager
async def turn(at: Field, one: Contestant, mode: str, workers: int = 1, *, wait: bool = True) -> AsyncIterator[Turn]:
    """Have workers and a writer for the block; `wait` for the flush of what is written."""
    async with contextlib.AsyncExitStack() as stack:
        url = await stack.enter_async_context(at.database(one))
        processes = [await stack.enter_async_context(Process(one, url)) for _ in range(workers)]
        writer = await stack.enter_async_context(Process(one, url if wait else impatient(url)))
        connection = await stack.enter_async_context(connected(url))
        names = [await process.ask("work", mode=mode) for process in processes]
        await asyncio.sleep(0.5)  # until all of them listen, and have nothing else to do
        yield Turn(one, url, processes, names, writer, connection)


@dataclass
class Throughput:
    """Events per second of each turn, by contestant, mode and number of workers."""

    rates: dict[tuple[str, str, int], list[float]] = field(default_factory=lambda: defaultdict(list))
    ended: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    """Errors that workers ended with."""

    def of(self, one: Contestant, mode: str, workers: int) -> list[float]:
        """Return the rates, empty if not measured."""
        return self.rates.get((one.name, mode, workers), [])


async def throughput(at: Field) -> Throughput:
    """Commit a backlog at once in front of idle workers; until all is done."""
    seen = Throughput()
    for _ in range(at.scene.repeat):
        for mode, workers in CASES:
            for one in at.contestants:
                if mode in one.sizes:
                    await _backlog(at, one, mode, workers, seen)
    return seen


async def _backlog(at: Field, one: Contestant, mode: str, workers: int, seen: Throughput) -> None:
    events = at.scene.scaled(one.sizes[mode], 100)
    async with turn(at, one, mode, workers) as scene:
        await scene.writer.ask("fill", events=events)
        began = time.monotonic()
        await scene.finished(events)
        seen.rates[one.name, mode, workers].append(events / (time.monotonic() - began))
        seen.ended[one.name].update(await scene.ended())


@dataclass
class Latency:
    """Milliseconds of each turn's events, by contestant."""

    handled: dict[str, list[list[float]]] = field(default_factory=lambda: defaultdict(list))
    """From the call that appends to the call of the handler."""
    appended: dict[str, list[list[float]]] = field(default_factory=lambda: defaultdict(list))
    """Of the call that appends."""


async def latency(at: Field) -> Latency:
    """Append at a steady rate in front of an idle worker."""
    delays = Latency()
    events = at.scene.scaled(TRICKLE, 2 * WARM_UP)
    for _ in range(at.scene.repeat):
        for one in at.contestants:
            async with turn(at, one, "clock", wait=False) as scene:
                sent = await scene.writer.ask("trickle", events=events, per_s=EVENTS_PER_S)
                await scene.finished(events)
                called = await scene.workers[0].ask("calls")
            warm = list(sent)[WARM_UP:]
            delays.handled[one.name].append([(called[n] - sent[n][0]) / 1e6 for n in warm])
            delays.appended[one.name].append([(sent[n][1] - sent[n][0]) / 1e6 for n in warm])
    return delays


async def writing(at: Field) -> dict[tuple[str, int], list[float]]:
    """Return the events per second that writers append while a worker is live, turn by turn."""
    rates: dict[tuple[str, int], list[float]] = defaultdict(list)
    seconds = max(WRITE_S * at.scene.scale, 0.3)
    for _ in range(at.scene.repeat):
        for writers in WRITERS:
            for one in at.contestants:
                async with turn(at, one, "noop") as scene:
                    rates[one.name, writers].append(await scene.writer.ask("write", writers=writers, seconds=seconds))
    return rates


@dataclass(frozen=True, slots=True)
class Death:
    """What a SIGKILL of one of two workers in mid-load did."""

    events: int
    held: int
    """What the dead worker had taken and not finished."""
    lost: int
    twice: int
    first_s: float | None
    """From the kill until the first of what it held was handled elsewhere."""
    last_s: float | None


async def deaths(at: Field, seen: Throughput) -> dict[str, Death]:
    """Kill a worker of each; only one contestant is busy at a time, but they wait for time-outs together."""
    alone = asyncio.Lock()
    found = await asyncio.gather(*(_death(at, one, seen, alone) for one in at.contestants))
    return dict(zip((one.name for one in at.contestants), found, strict=True))


async def _death(at: Field, one: Contestant, seen: Throughput, alone: asyncio.Lock) -> Death:
    workers = 2 if one.held else 1
    events = int(median(seen.of(one, "insert", workers)) * LOAD_S)
    async with contextlib.AsyncExitStack() as stack:
        async with alone:
            scene = await stack.enter_async_context(turn(at, one, "insert", workers))
            await scene.writer.ask("fill", events=events)
            await scene.handled(KILL_AFTER * events)
            victim, held, killed_at = await _kill(scene, events)
            if not one.held:
                await _restart(stack, scene)
            done = await _all_handled(scene, events, BUSY_S)
        if not done:
            await _all_handled(scene, events, GIVE_UP_S)
        row = await scene.connection.fetchrow(_AFTER_DEATH, events, held, victim, killed_at)
        assert row is not None, "an aggregate returns one row"
    return Death(events, len(held), *row)


async def _kill(scene: Turn, events: int) -> tuple[int, list[int], dt.datetime]:
    """Freeze the first worker, look what it holds, kill it; return its process, what it held, and when."""
    victim = scene.workers.pop(0).process
    victim.send_signal(signal.SIGSTOP)
    await asyncio.sleep(0.02)  # what it had asked the server for is done
    if scene.contestant.held:
        rows = await scene.connection.fetch(scene.contestant.held, scene.names[0])
    else:
        rows = await scene.connection.fetch(_REST, events)
    killed_at: dt.datetime = await scene.connection.fetchval("SELECT clock_timestamp()")
    victim.kill()
    return victim.pid, [row[0] for row in rows], killed_at


async def _restart(stack: contextlib.AsyncExitStack, scene: Turn) -> None:
    """Do what a supervisor would."""
    worker = await stack.enter_async_context(Process(scene.contestant, scene.url))
    await worker.ask("work", mode="insert")
    scene.workers.append(worker)


async def _all_handled(scene: Turn, events: int, timeout_s: float) -> bool:
    until = time.monotonic() + timeout_s
    while await scene.connection.fetchval(_COUNT) < events or await scene.connection.fetchval(
        scene.contestant.unfinished
    ):
        if time.monotonic() > until:
            return False
        await asyncio.sleep(0.1)
    return True


_COUNT = "SELECT count(DISTINCT id) FROM public.effects"
_REST = "SELECT n FROM generate_series(1, $1::integer) AS n EXCEPT SELECT id FROM public.effects"
_AFTER_DEATH = """
SELECT (SELECT count(*) FROM generate_series(1, $1::integer) AS n WHERE NOT EXISTS (SELECT FROM public.effects WHERE id = n)),
       (SELECT count(*) FROM (SELECT id FROM public.effects GROUP BY id HAVING count(*) > 1) AS twice),
       extract(epoch FROM min(at) - $4)::float8, extract(epoch FROM max(at) - $4)::float8
FROM public.effects WHERE id = ANY ($2::bigint[]) AND worker <> $3 AND at > $4
"""
