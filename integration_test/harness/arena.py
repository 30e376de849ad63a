"""The stage: a recorded database, worker processes that may die, writers that hold back, roll back and prepare."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections import Counter, deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

import asyncpg

from integration_test.chaos import planted, worker
from integration_test.harness import projections as test_projections
from reactive_orch import NewEvent, append
from reactive_orch.errors import Conflict

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
    from datetime import datetime

    from integration_test.harness.cluster import Cluster

T = TypeVar("T")

ROOT = Path(__file__).parents[2]
PARTITIONS = 32
REPLICA_SET = "chaos"
EXIT_UNREACHABLE = 3

LOST = (
    OSError,  # TimeoutError included
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
)
"""What a lost connection looks like."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What a checker has found wrong."""

    checker: str
    what: str

    def __str__(self) -> str:
        return f"{self.checker}: {self.what}"


class Caught(Exception):
    """A finding that ends a scenario at once."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(str(finding))
        self.finding = finding


# ----------------------------------------------------------------------------------------------------- processes


@dataclass(slots=True)
class Pace:
    """The workers' options that decide how long things take."""

    heartbeat_s: float = 0.3
    stale_s: float = 1.5
    batch: int = 50

    def options(self) -> list[str]:
        """Return them as arguments."""
        return [
            *("--heartbeat", f"{self.heartbeat_s:g}"),
            *("--stale-after", f"{self.stale_s:g}"),
            *("--batch", str(self.batch)),
        ]


class Process:
    """One worker process and what it said."""

    def __init__(self, name: str, command: Sequence[str], env: Mapping[str, str]) -> None:
        self.name = name
        self.log: deque[str] = deque(maxlen=400)
        self.doomed = False
        """Its end was wanted."""
        self.frozen = False
        self.proxied = False
        self.points: list[str] = []
        """What it did to itself."""
        self.started_at = time.monotonic()
        self.memory_kb: list[tuple[float, int]] = []
        self._command, self._env = command, env
        self._heard = asyncio.Event()

    async def start(self) -> Self:
        """Start it; its log is read from now on."""
        self._process = await asyncio.create_subprocess_exec(
            *self._command,
            cwd=ROOT,
            env={**os.environ, **self._env},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C ends the storm, and the storm ends the workers
        )
        self._reading = asyncio.create_task(self._read())
        return self

    async def _read(self) -> None:
        assert self._process.stdout is not None
        async for raw in self._process.stdout:
            line = raw.decode(errors="replace").rstrip("\n")
            self.log.append(line)
            if line.startswith("chaos: "):
                point = line.removeprefix("chaos: ")
                self.points.append(point)
                self.doomed |= point.endswith(" kill")
                self.frozen |= point.endswith(" stop")
            self._heard.set()

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def code(self) -> int | None:
        """The exit code; negative: the signal that killed it; None while it runs."""
        return self._process.returncode

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self._process.returncode is None

    def send(self, number: signal.Signals) -> None:
        """Send a signal, if it still runs."""
        if self.running:
            self.frozen = number is signal.SIGSTOP or (self.frozen and number is not signal.SIGCONT)
            self.doomed |= number in {signal.SIGKILL, signal.SIGTERM}
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)

    async def wait(self, timeout_s: float = 30.0) -> int:
        """Wait for its end. Raises TimeoutError."""
        async with asyncio.timeout(timeout_s):
            code = await self._process.wait()
            await self._reading
        return code

    async def end(self) -> None:
        """Kill it, whatever its state."""
        self.send(signal.SIGKILL)
        await self.wait()

    async def said(self, pattern: str, timeout_s: float = 20.0, times: int = 1) -> None:
        """Wait for lines that match."""
        deadline = time.monotonic() + timeout_s
        while sum(bool(re.search(pattern, line)) for line in self.log) < times:
            self._heard.clear()
            if not self.running or time.monotonic() > deadline:
                msg = f"{self.name} never said {pattern!r} {times} times (exit code {self.code}):\n{self.tail()}"
                raise Caught(Finding("progress" if self.running else "exits", msg))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.2):
                    await self._heard.wait()

    def tail(self, lines: int = 15) -> str:
        """Return its last words."""
        return "\n".join(f"    {line}" for line in [*self.log][-lines:])

    def measure(self) -> None:
        """Note how much memory it has."""
        with contextlib.suppress(OSError, StopIteration):
            status = Path(f"/proc/{self.pid}/status").read_text(encoding="utf-8")
            rss = next(line for line in status.splitlines() if line.startswith("VmRSS:"))
            self.memory_kb.append((time.monotonic() - self.started_at, int(rss.split()[1])))


# ------------------------------------------------------------------------------------------------------- writers


@dataclass(slots=True)
class Fate:
    """What became of an event, as its writer knows it."""

    outcome: str
    """`committed`, `rolled back` or `unknown`: then the database decides."""
    not_before: datetime
    """By the database's clock: the transaction was still open then."""
    position: int


@dataclass(slots=True)
class Habits:
    """How writers write."""

    pause_s: float = 0.02
    hold: float = 0.3
    hold_s: float = 0.03
    long_hold: float = 0.02
    long_hold_s: float = 0.6
    roll_back: float = 0.08
    savepoint: float = 0.2
    prepare: float = 0.0


class Writers:
    """Writers outside the workers, each on its own connection, on shared keys and on keys of their own."""

    def __init__(self, url: str, rng: random.Random, count: int = 5, habits: Habits | None = None) -> None:
        self.fates: dict[uuid.UUID, Fate] = {}
        self.kinds: Counter[str] = Counter()
        self.errors: list[str] = []
        self._url = url
        self._rng = rng
        self._count = count
        self._habits = habits or Habits()
        self._stopping = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        self._tasks = [asyncio.create_task(self._write(n)) for n in range(self._count)]
        if self._habits.prepare:
            self._tasks.append(asyncio.create_task(self._tidy_up()))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def stop(self) -> None:
        """Let transactions in flight end, roll back what was left prepared. Raises what a writer failed with."""
        self._stopping.set()
        await asyncio.gather(*self._tasks)
        self._tasks = []
        if self._habits.prepare:
            await self._roll_back_prepared(0)

    async def _tidy_up(self) -> None:
        """Do what a transaction manager does: a prepared transaction whose client is gone would lock for ever."""
        while not self._stopping.is_set():
            await asyncio.sleep(0.5)
            with contextlib.suppress(*LOST):
                await self._roll_back_prepared(2)

    async def _roll_back_prepared(self, older_than_s: float) -> None:
        async with connected(self._url) as connection:
            for row in await connection.fetch(_PREPARED, older_than_s):
                with contextlib.suppress(asyncpg.UndefinedObjectError):  # its client has just ended it
                    await connection.execute(f"ROLLBACK PREPARED '{row['gid']}'")

    @property
    def committed(self) -> int:
        """How many events are known to be committed."""
        return sum(fate.outcome == "committed" for fate in self.fates.values())

    async def _write(self, number: int) -> None:
        rng = random.Random(self._rng.random())
        while not self._stopping.is_set():
            try:
                async with connected(self._url) as connection:
                    while not self._stopping.is_set():
                        with contextlib.suppress(*_REFUSED):
                            await self._transact(connection, number, rng)
                        await asyncio.sleep(rng.expovariate(1 / self._habits.pause_s))
            except LOST:
                await asyncio.sleep(0.05)

    async def _transact(self, connection: Any, number: int, rng: random.Random) -> None:
        habits, ids = self._habits, [uuid.uuid4() for _ in range(rng.randint(1, 4))]
        prepare = rng.random() < habits.prepare
        await connection.execute("BEGIN")
        try:
            if prepare:  # PostgreSQL refuses to prepare a transaction that notifies: this one's trigger is silent
                await connection.execute("SET LOCAL session_replication_role = replica")
            await self._insert(connection, number, rng, ids)
            if rng.random() < habits.savepoint:
                await self._take_back(connection, number)
            if rng.random() < habits.hold:
                await asyncio.sleep(rng.uniform(0, habits.hold_s))
            if rng.random() < habits.long_hold:
                self.kinds["held long"] += 1
                await asyncio.sleep(rng.uniform(0, habits.long_hold_s))
            rows = await connection.fetch(_WRITTEN, ids)
        except BaseException:
            with contextlib.suppress(*LOST, asyncpg.PostgresError):
                await connection.execute("ROLLBACK")
            raise
        for row in rows:
            self.fates[row["event_id"]] = Fate("unknown", row["clock"], row["global_position"])
        await self._finish(connection, rng, ids, prepare=prepare)

    async def _insert(self, connection: Any, number: int, rng: random.Random, ids: Sequence[uuid.UUID]) -> None:
        way = rng.choice(("append", "append", "insert", "copy"))
        self.kinds[way] += 1
        if way == "append":
            keys = [f"shared-{rng.randrange(150)}" for _ in ids]
            await append(connection, [_event("Shared", key, i) for key, i in zip(keys, ids, strict=True)])
        elif way == "insert":
            key = f"own-{number}-{rng.randrange(20)}"
            for i in ids:
                await connection.execute(_INSERT, key, i)
        else:
            rows = [("Single", f"single-{i}", 1, i, "Copied") for i in ids]
            columns = ("aggregate_type", "aggregate_id", "aggregate_version", "event_id", "event_type")
            await connection.copy_records_to_table("events", schema_name="reactive_orch", columns=columns, records=rows)

    async def _take_back(self, connection: Any, number: int) -> None:
        self.kinds["savepoint rolled back"] += 1
        await connection.execute("SAVEPOINT chaos")
        await append(connection, [_event("Ghost", f"ghost-{number}-{uuid.uuid4()}", uuid.uuid4())])
        await connection.execute("ROLLBACK TO chaos")

    async def _finish(self, connection: Any, rng: random.Random, ids: Sequence[uuid.UUID], *, prepare: bool) -> None:
        back = rng.random() < self._habits.roll_back
        if prepare:
            self.kinds["prepared"] += 1
            name = f"chaos-{uuid.uuid4()}"
            await connection.execute(f"PREPARE TRANSACTION '{name}'")
            await asyncio.sleep(rng.uniform(0.02, 0.3))
            clock = await connection.fetchval("SELECT clock_timestamp()")
            for i in ids:
                self.fates[i].not_before = clock
            await connection.execute(f"{'ROLLBACK' if back else 'COMMIT'} PREPARED '{name}'")
        else:
            await connection.execute("ROLLBACK" if back else "COMMIT")
        self.kinds["rolled back"] += back
        for i in ids:
            self.fates[i].outcome = "rolled back" if back else "committed"


def _event(kind: str, key: str, event_id: uuid.UUID) -> NewEvent:
    return NewEvent(aggregate_type=kind, aggregate_id=key, event_type="Written", event_id=event_id)


_REFUSED = (
    Conflict,
    asyncpg.UniqueViolationError,
    asyncpg.DeadlockDetectedError,
    asyncpg.UndefinedObjectError,  # a prepared transaction that took so long that it was rolled back
)
_PREPARED = """
SELECT p.gid FROM pg_prepared_xacts p
WHERE p.database = current_database() AND p.prepared < clock_timestamp() - make_interval(secs => $1)
"""
_WRITTEN = """
SELECT e.event_id, e.global_position, clock_timestamp() AS clock FROM reactive_orch.events e
WHERE e.event_id = ANY ($1::uuid[])
"""
_INSERT = """
INSERT INTO reactive_orch.events (aggregate_type, aggregate_id, aggregate_version, event_id, event_type)
SELECT 'Own', $1, coalesce(max(e.aggregate_version), 0) + 1, $2, 'Inserted' FROM reactive_orch.events e
WHERE e.bounded_context = 'default' AND e.aggregate_type = 'Own' AND e.aggregate_id = $1
"""


# --------------------------------------------------------------------------------------------------------- arena


@contextlib.asynccontextmanager
async def connected(url: str, name: str = "chaos:writer") -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    """Connect for the block, under a name that no fault aims at."""
    connection = await asyncpg.connect(url, timeout=5, server_settings={"application_name": name})
    try:
        yield connection
    finally:
        with contextlib.suppress(*LOST):
            await connection.close(timeout=2)


@dataclass(slots=True)
class Arena:
    """One database, the processes on it, and what has been found so far."""

    cluster: Cluster
    url: str
    rng: random.Random
    pace: Pace = field(default_factory=Pace)
    projections: tuple[str, ...] = ("handled", "handled_in_batches")
    mutant: str = ""
    processes: list[Process] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    calm: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="reactive_orch-chaos-")) / "calm")
    settled_to: int = 0
    """Up to here everything was handled when last looked at."""
    _numbers: int = 0

    @property
    def living(self) -> list[Process]:
        """The processes that run."""
        return [process for process in self.processes if process.running]

    async def start(
        self, *, rules: str = "", url: str = "", env: Mapping[str, str] | None = None, options: Sequence[str] = ()
    ) -> Process:
        """Start a worker; `url` if not that of the arena, `options` after the usual ones."""
        self._numbers += 1
        name = f"w{self._numbers}"
        command = [
            *(sys.executable, "-m", "integration_test.chaos.worker", "--database-url", url or self.url),
            *("--replica-set", REPLICA_SET, "--http", "127.0.0.1:0", *self.pace.options(), *options),
            *(word for p in self.projections for word in ("--projection", f"integration_test.harness.projections:{p}")),
        ]
        variables = {
            test_projections.WORKER: name,
            test_projections.REPLICA_SET: REPLICA_SET,
            worker.RULES: rules,
            worker.SEED: str(self.rng.random()),
            worker.CALM: str(self.calm),
            planted.MUTANT: self.mutant,
            **(env or {}),
        }
        process = Process(name, command, variables)
        process.proxied = bool(url)
        self.processes.append(await process.start())
        return process

    async def ask(self, sql: str, *args: Any, timeout_s: float = 20.0) -> list[Any]:
        """Return the rows, trying again while the server is away."""
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                async with connected(self.url, "chaos:arena") as connection:
                    return list(await connection.fetch(sql, *args))
            except LOST:
                if time.monotonic() > deadline:
                    raise
                await asyncio.sleep(0.05)

    async def value(self, sql: str, *args: Any) -> Any:
        """Return the first column of the first row."""
        return (await self.ask(sql, *args))[0][0]

    async def until(
        self, predicate: Callable[[], Awaitable[Any]], what: str, *, checker: str = "progress", timeout_s: float = 15.0
    ) -> float:
        """Wait for a fact; return how long it took. Raises Caught at the deadline or when a worker ends by itself.

        A fact that took longer to ask for than it may take is as late as one that was not true.
        """
        started = time.monotonic()
        while True:
            value = await predicate()
            took = time.monotonic() - started
            if took > timeout_s:
                raise Caught(Finding(checker, f"not within {timeout_s:g} s: {what} (after {took:.0f} s: {value!r})"))
            if value:
                return took
            self.examine_ends()
            if self.findings:
                raise Caught(self.findings[0])
            await asyncio.sleep(0.05)

    def examine_ends(self) -> None:
        """Note workers that ended though nobody wanted it, and what should never be in a log."""
        for process in self.processes:
            if not process.running and not process.doomed:
                process.doomed = True
                if process.code != EXIT_UNREACHABLE:  # a supervisor starts that one again
                    self.findings.append(
                        Finding("exits", f"{process.name} ended by itself with code {process.code}:\n{process.tail()}")
                    )
            strange = [line for line in process.log if _STRANGE.search(line)]
            if strange:
                self.findings.append(Finding("log", f"{process.name}: {strange[0]}\n{process.tail(40)}"))
                process.log.clear()

    async def members(self) -> list[Any]:
        """Return the members."""
        return await self.ask("SELECT m.* FROM reactive_orch.members m ORDER BY m.id")

    async def all_handled(self) -> bool:
        """Tell whether every event of the log was handled by every projection. Raises Caught when one never will be."""
        row = (await self.ask(_MISSING, REPLICA_SET, list(self.projections), self.settled_to))[0]
        if row["lost"]:
            raise Caught(Finding("lost", f"{row['lost']} events lie behind their checkpoints, unhandled"))
        return not row["missing"]

    async def is_settled(self, members: int) -> bool:
        """Tell whether the replica set has this many members and they have adopted its generation."""
        rows = await self.ask(_SETTLED, REPLICA_SET)
        return bool(rows) and rows[0]["complete"] and rows[0]["members"] == members == rows[0]["all_members"]

    async def settle(self, members: int, timeout_s: float = 20.0) -> float:
        """Wait until the generation is settled and the log handled; return how long it took."""
        started = time.monotonic()
        what = f"settled with {members} members"
        await self.until(lambda: self.is_settled(members), what, checker="settle", timeout_s=timeout_s)
        head = await self.value("SELECT coalesce(max(e.global_position), 0) FROM reactive_orch.events e")
        await self.until(self.all_handled, "every event handled", checker="settle", timeout_s=timeout_s)
        self.settled_to = head
        return time.monotonic() - started

    async def stop_workers(self, timeout_s: float = 20.0) -> None:
        """Stop all workers in good order; what does not end well is a finding."""
        living = self.living
        for process in living:
            process.send(signal.SIGCONT)
            process.send(signal.SIGTERM)
        for process in living:
            try:
                code = await process.wait(timeout_s)
            except TimeoutError:
                self.findings.append(
                    Finding("exits", f"{process.name} did not stop in {timeout_s:g} s:\n{process.tail()}")
                )
                continue
            if code:
                self.findings.append(Finding("exits", f"{process.name} stopped with code {code}:\n{process.tail()}"))
        self.examine_ends()

    async def close(self) -> None:
        """End every process."""
        for process in self.processes:
            await process.end()
        shutil.rmtree(self.calm.parent)


_STRANGE = re.compile(r"Traceback|never retrieved|never awaited|Exception ignored|Unclosed|unexpected [A-Z]")

_MISSING = """
SELECT count(*) AS missing, count(*) FILTER (WHERE e.global_position <= c.position) AS lost
FROM reactive_orch.events e, reactive_orch.checkpoints c
WHERE e.global_position > $3 AND c.replica_set = $1 AND c.projection = ANY ($2::text[]) AND c.partition = e.partition
  AND NOT EXISTS (SELECT FROM public.handled h
                  WHERE h.replica_set = $1 AND h.projection = c.projection AND h.position = e.global_position)
"""
_SETTLED = """
SELECT coalesce(g.completed_at IS NOT NULL, false) AS complete, cardinality(g.members) AS members,
       (SELECT count(*) FROM reactive_orch.members m WHERE m.replica_set = r.name) AS all_members
FROM reactive_orch.replica_sets r
JOIN reactive_orch.generations g ON g.replica_set = r.name AND g.number = r.generation
WHERE r.name = $1
"""


def migrate(url: str) -> None:
    """Create the schema with the arena's number of partitions, the projections' tables and the recorders."""
    arguments = ["migrate", "--partitions", str(PARTITIONS), "--database-url", url]
    subprocess.run([sys.executable, "-m", "reactive_orch", *arguments], check=True, cwd=ROOT, capture_output=True)


@contextlib.contextmanager
def database(cluster: Cluster, name: str, template: str = "") -> Iterator[str]:
    """A database for the block: migrated, or a copy of one."""
    if template:
        url = cluster.clone_database(template, name)
    else:
        url = cluster.create_database(name)
        migrate(url)
    try:
        yield url
    finally:
        cluster.drop_database(name)


async def until_terminated(work: Coroutine[Any, Any, T]) -> T:
    """Do the work; SIGTERM ends it as Ctrl-C does, with its workers and its server."""
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return await work
