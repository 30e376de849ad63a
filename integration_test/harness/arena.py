"""An arena: one recorded database, the worker processes on it that may die, and what has been found so far."""

from __future__ import annotations

import asyncio
import contextlib
import re
import shutil
import signal
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from integration_test.harness import points
from integration_test.harness import projections as test_projections
from integration_test.harness.checkers import SETTLED
from integration_test.harness.cluster import migrated
from integration_test.harness.connections import LOST, connected
from integration_test.harness.processes import ACCIDENT, Process, worker_command
from integration_test.harness.waiting import wait_until

if TYPE_CHECKING:
    import random
    from collections.abc import Awaitable, Callable, Mapping, Sequence
    from contextlib import AbstractContextManager

    from integration_test.harness.cluster import Cluster

PARTITIONS = 32
REPLICA_SET = "chaos"
EXIT_UNREACHABLE = 3
WORKER = "integration_test.chaos.worker"
"""The module that its workers run: ours, with named points and perhaps a planted bug."""


def database(cluster: Cluster, name: str) -> AbstractContextManager[str]:
    """Make a database for the block, with the schema and as many partitions as an arena has; its URL."""
    return migrated(cluster, name, "--partitions", str(PARTITIONS))


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


class Victim(Process):
    """A worker process to which something may happen, by others or by itself."""

    def __init__(self, name: str, command: Sequence[str], env: Mapping[str, str]) -> None:
        super().__init__(name, command, env)
        self.doomed = False
        """Its end was wanted."""
        self.frozen = False
        self.joined = False
        """It has said that it has adopted a generation."""
        self.proxied = False
        self.points: list[str] = []
        """What it did to itself."""
        self.strange: list[str] = []
        """Lines that nobody has looked at and that should be in no log."""
        self.deadlocks = 0
        """How often it has told of one."""
        self.ended_by: tuple[int, float] | None = None
        """The position of the event that has ended it, and when."""
        self.started_at = time.monotonic()
        self.memory_kb: list[tuple[float, int]] = []

    def hear(self, line: str) -> None:
        """Take note of a line, and of what it says that it does to itself."""
        super().hear(line)
        self.joined |= " adopted in " in line
        self.deadlocks += " have deadlocked" in line
        if _STRANGE.search(line):
            self.strange.append(line)
        if line.startswith(test_projections.ENDED_BY):
            self.ended_by = (int(line.removeprefix(test_projections.ENDED_BY)), time.monotonic())
            self.doomed = True
        if line.startswith("chaos: "):
            point = line.removeprefix("chaos: ")
            self.points.append(point)
            self.doomed |= point.endswith(" kill")
            self.frozen |= point.endswith(" stop")

    def send(self, number: signal.Signals) -> None:
        """Send a signal, if it still runs."""
        if self.running:
            self.frozen = number is signal.SIGSTOP or (self.frozen and number is not signal.SIGCONT)
            self.doomed |= number in {signal.SIGKILL, signal.SIGTERM}
            with contextlib.suppress(ProcessLookupError):
                super().send(number)

    async def said(self, pattern: str, timeout_s: float = 20.0, times: int = 1) -> re.Match[str]:
        """Wait for so many lines that match, and return the last. Raises Caught."""
        try:
            return await super().said(pattern, timeout_s, times)
        except AssertionError as never:
            raise Caught(Finding("progress" if self.running else "exits", str(never))) from None

    def measure(self) -> None:
        """Note how much memory it has."""
        with contextlib.suppress(OSError, StopIteration):
            status = Path(f"/proc/{self.pid}/status").read_text(encoding="utf-8")
            rss = next(line for line in status.splitlines() if line.startswith("VmRSS:"))
            self.memory_kb.append((time.monotonic() - self.started_at, int(rss.split()[1])))


_STRANGE = re.compile(f"{ACCIDENT}|unexpected [A-Z]")


@dataclass(slots=True)
class Arena:
    """One database, the processes on it, and what has been found so far."""

    cluster: Cluster
    url: str
    rng: random.Random
    pace: Pace = field(default_factory=Pace)
    projections: tuple[str, ...] = ("handled", "handled_in_batches")
    env: Mapping[str, str] = field(default_factory=dict)
    """Variables of all its workers."""
    processes: list[Victim] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    calm: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="reactive_orch-chaos-")) / "calm")
    hidden_at: list[float] = field(default_factory=list)
    """When something happened that may have hidden from the workers what ended a process, or had it tried again."""
    settled_to: int = 0
    """Up to here everything was handled when last looked at."""
    _numbers: int = 0

    def hide(self) -> None:
        """Note that something happens that may hide what ends a process."""
        self.hidden_at.append(time.monotonic())

    @property
    def living(self) -> list[Victim]:
        """The processes that run."""
        return [process for process in self.processes if process.running]

    async def start(
        self,
        *,
        rules: str = "",
        url: str = "",
        env: Mapping[str, str] | None = None,
        options: Sequence[str] = (),
        without: str = "",
    ) -> Victim:
        """Start a worker; `url` if not that of the arena, `options` after the usual ones, `without` this projection."""
        self._numbers += 1
        name = f"w{self._numbers}"
        projections = [each for each in self.projections if each != without]
        command = worker_command(
            url or self.url, REPLICA_SET, projections, *self.pace.options(), *options, module=WORKER
        )
        variables = {
            **test_projections.variables(name, REPLICA_SET),
            points.RULES: rules,
            points.SEED: str(self.rng.random()),
            points.CALM: str(self.calm),
            test_projections.GROUP: "together" if self._numbers % 2 else "",
            **self.env,
            **(env or {}),
        }
        victim = Victim(name, command, variables)
        victim.proxied = bool(url)
        self.processes.append(await victim.start())
        return victim

    async def ask(self, sql: str, *args: Any, timeout_s: float = 20.0) -> list[Any]:
        """Return the rows, trying again while the server is away."""
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                async with connected(self.url) as connection:
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

        A fact that is found true only after the deadline, as asking took so long, is late all the same.
        """
        started = time.monotonic()

        async def true() -> Any:
            value = await predicate()
            if not value:
                self.examine_ends()
                if self.findings:
                    raise Caught(self.findings[0])
            return value

        try:
            await wait_until(true, timeout_s, what)
        except AssertionError as late:
            raise Caught(Finding(checker, str(late))) from None
        took = time.monotonic() - started
        if took > timeout_s:
            raise Caught(Finding(checker, f"not within {timeout_s:g} s: {what} (after {took:.0f} s)"))
        return took

    def examine_ends(self) -> None:
        """Note workers that ended though nobody wanted it, and what should never be in a log."""
        for process in self.processes:
            if not process.running and not process.doomed:
                process.doomed = True
                if process.code != EXIT_UNREACHABLE:  # a supervisor starts that one again
                    self.findings.append(
                        Finding(
                            "exits", f"{process.name} ended by itself with code {process.code}:\n{process.tail(15)}"
                        )
                    )
            if process.strange:
                self.findings.append(Finding("log", f"{process.name}: {process.strange[0]}\n{process.tail(40)}"))
                process.strange.clear()

    async def members(self) -> list[Any]:
        """Return the members."""
        return await self.ask("SELECT m.* FROM reactive_orch.members m ORDER BY m.id")

    async def all_handled(self) -> bool:
        """Tell whether every projection has handled every event, or lets it wait. Raises Caught when one is lost."""
        row = (await self.ask(_MISSING, REPLICA_SET, list(self.projections), self.settled_to))[0]
        if row["lost"]:
            raise Caught(Finding("lost", f"{row['lost']} events lie behind their checkpoints, unhandled"))
        return not row["missing"]

    async def is_settled(self, members: int) -> bool:
        """Tell whether the replica set has this many members and they have adopted its generation."""
        return bool(await self.ask(SETTLED, REPLICA_SET, members))

    async def settle(self, members: int, timeout_s: float = 20.0) -> float:
        """Wait until the generation is settled and the log handled; return how long it took."""
        started = time.monotonic()
        what = f"settled with {members} members"
        try:
            await self.until(lambda: self.is_settled(members), what, checker="settle", timeout_s=timeout_s)
        except Caught as caught:
            raise Caught(Finding(caught.finding.checker, f"{caught.finding.what}\n{await self._standing()}")) from None
        head = await self.value("SELECT coalesce(max(e.global_position), 0) FROM reactive_orch.events e")
        await self.until(self.all_handled, "every event handled", checker="settle", timeout_s=timeout_s)
        self.settled_to = head
        return time.monotonic() - started

    async def _standing(self) -> str:
        """Return who the members are, how far they are, and what the living have said last: why nothing settles."""
        rows = [*await self.ask(_GENERATION, REPLICA_SET), *await self.members()]
        said = [
            f"{process.name}, {'frozen' if process.frozen else 'awake'}:\n{process.tail(12)}" for process in self.living
        ]
        return "\n".join([*(str(dict(row)) for row in rows), *said])

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
                    Finding("exits", f"{process.name} did not stop in {timeout_s:g} s:\n{process.tail(15)}")
                )
                continue
            if code:
                self.findings.append(Finding("exits", f"{process.name} stopped with code {code}:\n{process.tail(15)}"))
        self.examine_ends()

    async def close(self) -> None:
        """End every process."""
        for process in self.processes:
            await process.end()
        shutil.rmtree(self.calm.parent)


_GENERATION = "SELECT g.* FROM reactive_orch.generations g WHERE g.replica_set = $1 ORDER BY g.number DESC LIMIT 2"

_MISSING = """
SELECT count(*) AS missing, count(*) FILTER (WHERE e.global_position <= c.position) AS lost
FROM reactive_orch.events e, reactive_orch.checkpoints c
WHERE e.global_position > $3 AND c.replica_set = $1 AND c.projection = ANY ($2::text[]) AND c.partition = e.partition
  AND NOT EXISTS (SELECT FROM public.fates f
                  WHERE f.replica_set = $1 AND f.projection = c.projection AND f.position = e.global_position)
"""
