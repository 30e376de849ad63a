"""The other side of a measurement: python -m bench.processes ROLE ARGUMENTS, then questions on standard input.

    floor    LISTEN, and SELECT what is new, on bare asyncpg
    bare     read a batch, save the position, on bare asyncpg; or only read
    workers  workers of this package, as a library, with the collector of cycles as the command line sets it

UVLOOP=1 in the environment runs any of them on uvloop.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import logging
import os
import resource
import sys
import time
from typing import TYPE_CHECKING, Any

import anyio
import asyncpg

from bench import projections
from reactive_orch import Config, Node, Projection, Worker
from reactive_orch.cli import COLLECT_AFTER
from reactive_orch.runtime.handling import in_hand, lane
from reactive_orch.runtime.reading import window_cache

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anyio.abc import TaskGroup

    from reactive_orch import Event

COLUMNS = (
    "global_position, partition, bounded_context, aggregate_type, aggregate_id, aggregate_version, event_id, event_type, "
    "event_version, payload, trace_id, correlation_id, causation_id, metadata::text, created_at"
)
ALL_AFTER = "SELECT * FROM reactive_orch.events WHERE global_position > $1 ORDER BY global_position LIMIT $2"
AFTER = f"SELECT {COLUMNS} FROM reactive_orch.events WHERE global_position > $1 ORDER BY global_position LIMIT $2"  # noqa: S608
SAVE = "UPDATE public.bench_checkpoint SET position = $1 WHERE id = 1"


class Floor:
    """Nothing but LISTEN and SELECT."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._called: dict[int, int] = {}
        self._bell = asyncio.Event()

    async def run(self, tasks: TaskGroup) -> None:
        """Connect and follow."""
        self._connection = await asyncpg.connect(self._url)
        self._ear = await asyncpg.connect(self._url)
        await self._ear.add_listener("reactive_orch_events", lambda *_: self._bell.set())
        # Nobody disarms the bell here: the floor hears every event.
        await self._connection.execute("SELECT reactive_orch.arm_bell('events', 600000)")
        tasks.start_soon(self._follow)

    async def _follow(self) -> None:
        position = await self._connection.fetchval("SELECT coalesce(max(global_position), 0) FROM reactive_orch.events")
        while True:
            await self._bell.wait()
            self._bell.clear()
            for row in await self._connection.fetch(AFTER, position, 100):
                self._called[row["global_position"]] = time.monotonic_ns()
                position = row["global_position"]

    async def report(self) -> dict[str, dict[int, int]]:
        """Return position → when its row was in hand."""
        called, self._called = self._called, {}
        return {"called": called}


class Bare:
    """A loop that reads a batch, does the statements of a handler and saves the position, in one transaction."""

    def __init__(self, url: str) -> None:
        self._url = url

    async def run(self, tasks: TaskGroup) -> None:  # noqa: ARG002
        """Connect."""
        self._connection = await asyncpg.connect(self._url)

    async def catch_up(self, batch: int, mode: str) -> float:
        """Return the seconds from the first read to the last commit."""
        connection = self._connection
        await connection.execute("TRUNCATE public.bench_effects")
        await connection.fetch(AFTER, 0, 1)
        began, position = time.monotonic(), 0
        while rows := await connection.fetch(AFTER, position, batch):
            position = rows[-1]["global_position"]
            async with connection.transaction():
                if mode == "insert_batch":
                    await connection.execute(
                        projections.INSERT_MANY,
                        [row["global_position"] for row in rows],
                        [row["aggregate_id"] for row in rows],
                    )
                elif mode == "insert_each":
                    for row in rows:
                        await connection.execute(projections.INSERT_ONE, row["global_position"], row["aggregate_id"])
                await connection.execute(SAVE, position)
        return time.monotonic() - began

    async def read(self, batch: int) -> float:
        """Return the seconds that reading the whole log takes: no handler, no transaction, nothing saved."""
        began, position = time.monotonic(), 0
        while rows := await self._connection.fetch(ALL_AFTER, position, batch):
            position = rows[-1]["global_position"]
        return time.monotonic() - began


class Workers:
    """Workers, each with a node of its own, as if each were a process."""

    def __init__(self, url: str, replica_set: str, names: Sequence[str], batch: int = 100, count: int = 1) -> None:
        self._config = Config(database_url=url, batch_events=batch)
        self._replica_set, self._names, self._count = replica_set, names, count
        self._committed: dict[int, int] = {}
        self._batches: list[tuple[float, int]] = []
        self._last_ns = 0
        self._workers: list[Worker] = []
        self._done: list[anyio.Event] = []
        self._together = anyio.Event()
        gc.set_threshold(*COLLECT_AFTER)
        logging.getLogger("reactive_orch").addHandler(logging.NullHandler())  # what fails on purpose is not to be said
        committed, handle = in_hand.InHand._committed, lane.Lane.handle  # noqa: SLF001 - nothing else tells of commits

        def noting(one: in_hand.InHand, handled: Sequence[Event]) -> None:
            committed(one, handled)
            self._note(handled)

        async def timing(one: lane.Lane, batches: Any, connection: Any, window: Any, batch: Any) -> Any:
            done = await handle(one, batches, connection, window, batch)
            self._batches.append((batches.swap_s * 1000, len(done.events)))
            return done

        in_hand.InHand._committed = noting  # type: ignore[method-assign, assignment]  # noqa: SLF001
        if "several_0" in names:
            lane.Lane.handle = timing  # type: ignore[method-assign, assignment]

    def _note(self, events: Sequence[Event]) -> None:
        self._last_ns = time.monotonic_ns()
        if {"clock", "apart_0", "together_0"} & set(self._names):
            self._committed.update((event.global_position, self._last_ns) for event in events)

    async def run(self, tasks: TaskGroup) -> None:
        """Be ready to start."""
        self._tasks = tasks

    async def start(self, count: int | None = None, replica_set: str | None = None) -> None:
        """Start the workers and wait until they serve."""
        self._replica_set = replica_set or self._replica_set
        projections.seen.update(events=0, first_ns=0)
        for _ in range(count or self._count):
            await self._tasks.start(self._serve)

    def _projections(self) -> list[Projection]:
        return [getattr(projections, name) for name in self._names]

    async def read_alone(self) -> None:
        """Let each projection read for itself from now on."""
        window_cache.WINDOWS_KEPT = 0

    async def together(self) -> None:
        """Start all at once, on one node, and do not wait for more than the node."""
        self._tasks.start_soon(self.start_together)
        await self._together.wait()

    async def _serve(self, *, task_status: anyio.abc.TaskStatus[None]) -> None:
        async with Node(self._config) as node:
            worker = Worker(node, self._replica_set, self._projections())
            self._workers.append(worker)
            done = anyio.Event()
            self._done.append(done)

            async def until_serving() -> None:
                while worker.state.name not in {"SERVING", "STANDBY"}:
                    await anyio.sleep(0.01)
                task_status.started()

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(until_serving)
                await worker.run()
                tasks.cancel_scope.cancel()
        done.set()

    async def stop(self, count: int | None = None) -> None:
        """Stop the workers, or the last few, and wait until they have left."""
        count = count or len(self._workers)
        for worker in self._workers[-count:]:
            worker.stop()
        for done in self._done[-count:]:
            await done.wait()
        del self._workers[-count:], self._done[-count:]

    async def start_together(self) -> None:
        """Start all at once, on one node."""
        async with Node(self._config) as node:
            workers = [Worker(node, self._replica_set, self._projections()) for _ in range(self._count)]
            self._workers += workers
            self._done = [anyio.Event()] * self._count
            self._together.set()
            async with anyio.create_task_group() as tasks:
                for worker in workers:
                    tasks.start_soon(worker.run)
        self._done[0].set()

    async def catch_up(self, replica_set: str, events: int) -> float:
        """Start anew from the beginning of the log; return the seconds from the first event to the last commit."""
        await self.start(replica_set=replica_set)
        await self.until(events)
        seconds = (self._last_ns - projections.seen["first_ns"]) / 1e9
        await self.stop()
        return seconds

    async def until(self, events: int) -> None:
        """Wait until this process has handled so many events."""
        while sum(sum(worker.events_handled.values()) for worker in self._workers) < events:
            await anyio.sleep(0.002)

    async def handled(self) -> int:
        """Return how many events its workers have handled."""
        return sum(sum(worker.events_handled.values()) for worker in self._workers)

    async def report(self) -> dict[str, Any]:
        """Return position → when the handler was called, and when it was committed."""
        called, projections.called = projections.called, {}
        committed, self._committed = self._committed, {}
        return {"called": called, "committed": committed}

    async def processor_s(self) -> float:
        """Return how many seconds of a processor this process has used."""
        used = resource.getrusage(resource.RUSAGE_SELF)
        return used.ru_utime + used.ru_stime

    async def batches(self) -> list[tuple[float, int]]:
        """Return of each batch since the last time how long its swap took, in milliseconds, and how many its events."""
        batches, self._batches = self._batches, []
        return batches

    async def memory(self) -> int:
        """Return the process's greatest resident size so far, in bytes."""
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


ROLES = {"floor": Floor, "bare": Bare, "workers": Workers}


async def serve(role: str, arguments: dict[str, Any]) -> None:
    """Answer questions until standard input ends."""
    one: Any = ROLES[role](**arguments)
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    async with anyio.create_task_group() as tasks:
        await one.run(tasks)
        print("null", flush=True)
        while line := await reader.readline():
            what, given = json.loads(line)
            print(json.dumps(await getattr(one, what)(**given)), flush=True)
        tasks.cancel_scope.cancel()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        anyio.run(
            serve, sys.argv[1], json.loads(sys.argv[2]), backend_options={"use_uvloop": os.environ.get("UVLOOP") == "1"}
        )
