"""A storm of faults by a seed, and what the checkers say when it is over: `python -m integration_test.chaos.run`.

Rounds: workers are killed, frozen, cut off and restarted while writers go on; then everything heals, the replica set
must settle, and every checker looks. Exit code 1 with what was found. The same seed gives the same schedule; which
interleaving it meets is up to the machine.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import signal
import statistics
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from integration_test.chaos import planted
from integration_test.harness import poison
from integration_test.harness import recorded as checkers
from integration_test.harness.arena import REPLICA_SET, Arena, Caught, Finding, database
from integration_test.harness.cluster import Cluster
from integration_test.harness.faults import Faults
from integration_test.harness.load import Habits, Writers
from integration_test.harness.points import POINTS
from integration_test.harness.processes import until_terminated
from integration_test.harness.proxy import Proxy
from integration_test.harness.report import machine, put_section
from integration_test.harness.servers import chosen

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from integration_test.harness.arena import Victim

ROUND_S = 45.0
SETTLE_S = 25.0
"""In this time everything must be quiet after the last fault, however loaded the machine."""
FAULTS_AT_ONCE_MAX = 4


@dataclass(slots=True)
class Options:
    """How big the storm is."""

    seconds: float = 60.0
    seed: int = 0
    workers: int = 6
    writers: int = 5
    faults_per_s: float = 1.2
    mutant: str = ""
    lethal: bool = True
    """Whether some events end the process that handles them."""


@dataclass(slots=True)
class Summary:
    """What came of it."""

    seed: int
    seconds: float = 0.0
    rounds: int = 0
    events: int = 0
    unknown: int = 0
    writes: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    points: Counter[str] = field(default_factory=Counter)
    generations: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    processes: int = 0
    spells: int = 0
    """In which batches went one at a time after a deadlock, as workers have told."""
    ended_by: Counter[int] = field(default_factory=Counter)
    """How many processes each lethal event has ended."""
    settle_s: list[float] = field(default_factory=list)
    delays_s: list[float] = field(default_factory=list)
    memory_mb: str = ""
    findings: list[Finding] = field(default_factory=list)

    def count(self, *kinds: str) -> int:
        """Return how many findings are of these kinds."""
        return sum(finding.checker in kinds for finding in self.findings)

    def __str__(self) -> str:
        lines = [
            f"seed {self.seed}: {'FAILED' if self.findings else 'well'} after {self.seconds:.0f} s, "
            f"{self.rounds} rounds, {self.processes} worker processes",
            f"events {self.events} ({self.unknown} of unknown outcome); {_listed(self.writes)}",
            f"faults {self.faults.total()}: {_listed(self.faults)}",
            f"at named points {self.points.total()}: {_listed(self.points)}",
            f"generations {self.generations}: {_listed(self.reasons)}",
            f"deadlocks that made batches go one at a time: {self.spells}",
            f"processes ended by {len(self.ended_by)} lethal events: {_each(self.ended_by)}",
            f"lost {self.count('lost')}, twice {self.count('twice')}, phantom {self.count('phantom')}, "
            f"out of order {self.count('order')}",
            f"from commit to handled, storm included: {_quantiles(self.delays_s)}",
            f"time to settle after the last fault: {_quantiles(self.settle_s)}",
            f"memory of the worker that was never ended: {self.memory_mb or 'not measured'}",
            *(f"FOUND {finding}" for finding in self.findings),
        ]
        return "\n".join(lines)

    def markdown(self, where: str) -> str:
        """Return it as a section."""
        rows = {
            "seed": self.seed,
            "rounds": self.rounds,
            "worker processes": self.processes,
            "events": f"{self.events} ({self.unknown} of unknown outcome)",
            "their transactions": _listed(self.writes),
            f"faults from outside: {self.faults.total()}": _listed(self.faults),
            f"faults at named points: {self.points.total()}": _listed(self.points),
            f"generations: {self.generations}": _listed(self.reasons),
            "deadlocks that made batches go one at a time": self.spells,
            f"processes ended by {len(self.ended_by)} lethal events": _each(self.ended_by),
            "**lost**": self.count("lost"),
            "**handled twice**": self.count("twice"),
            "phantoms": self.count("phantom"),
            "out of order": self.count("order"),
            "all findings": len(self.findings),
            "from commit to handled, in the storm": _quantiles(self.delays_s),
            "time to settle after a round's last fault": _quantiles(self.settle_s),
            "memory of the worker that was never ended": self.memory_mb,
        }
        table = "\n".join(f"| {name} | {value} |" for name, value in rows.items())
        findings = "\n".join(f"    {line}" for finding in self.findings for line in str(finding).splitlines())
        head = f"## Soak\n\n{self.seconds / 60:.0f} minutes of `make soak`; {where}."
        return f"{head}\n\n| | |\n|---|---|\n{table}\n\n{findings}"


def _each(counts: Counter[int]) -> str:
    return ", ".join(map(str, counts.values())) or "none"


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.most_common()) or "none"


def _quantiles(values: Sequence[float]) -> str:
    if len(values) < 2:
        return ", ".join(f"{value * 1000:.0f} ms" for value in values) or "none"
    cuts = statistics.quantiles(values, n=100, method="inclusive")
    return f"p50 {cuts[49] * 1000:.0f} ms, p99 {cuts[98] * 1000:.0f} ms, max {max(values) * 1000:.0f} ms"


class Storm:
    """One database's storm, round after round."""

    def __init__(self, arena: Arena, options: Options, proxy: Proxy) -> None:
        self.summary = Summary(options.seed)
        self._arena = arena
        self._options = options
        self._proxy = proxy
        self._rng = arena.rng
        self._faults = Faults(arena, proxy)
        self._struck: set[asyncio.Task[None]] = set()
        self._book = checkers.Book()
        self._ended: list[Victim] = []
        self._writers: list[Writers] = []

    async def run(self) -> None:
        """Rage for as long as was asked for, in rounds."""
        started = time.monotonic()
        rounds = max(round(self._options.seconds / ROUND_S), 1)
        try:
            for n in range(rounds):
                await self._round(started + self._options.seconds * (n + 1) / rounds)
                if self.summary.findings:
                    break
            await self._arena.stop_workers()
            self._find(self._arena.findings)
            self._find(await checkers.leaks(self._arena))
        except Caught as caught:
            self._find([caught.finding, *(await checkers.check(self._arena, self._writers, self._book))])
        finally:
            self.summary.seconds = time.monotonic() - started
            self._summarise()

    async def _round(self, until: float) -> None:
        self._arena.calm.unlink(missing_ok=True)
        await poison.fall_ill(self._arena)
        writers = Writers(self._arena.url, self._rng, self._options.writers, Habits(prepare=0.02))
        self._writers = [writers]
        async with writers, self._kept_up():
            if self._options.lethal:
                await poison.poison_lethally(self._arena, self._rng)
            while time.monotonic() < until:
                await asyncio.sleep(self._rng.expovariate(self._options.faults_per_s))
                if len(self._struck) < FAULTS_AT_ONCE_MAX:
                    self._strike()
            await self._heal()
        await self._examine(writers)

    def _strike(self) -> None:
        name, fault = self._faults.pick(self._rng)
        self.summary.faults[name] += 1
        task = asyncio.create_task(self._suffer(fault, random.Random(self._rng.random())))
        self._struck.add(task)
        task.add_done_callback(self._struck.discard)

    async def _suffer(self, fault: Callable[[random.Random], Awaitable[None]], rng: random.Random) -> None:
        await fault(rng)

    async def _heal(self) -> None:
        self._arena.calm.touch()
        if self._struck:
            await asyncio.gather(*self._struck)
        self._proxy.flow()
        if self._options.lethal:
            await poison.waits_for_antidote(self._arena, SETTLE_S)
            await poison.antidote(self._arena)

    @contextlib.asynccontextmanager
    async def _kept_up(self) -> AsyncIterator[None]:
        """Keep the number of workers, as a supervisor does, and wake those that have frozen themselves."""
        keeping = asyncio.create_task(self._keep_up())
        try:
            yield
            # One that was cut off as it started ends with code 3 only when its attempts to connect have timed out.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(SETTLE_S):
                    while sum(process.joined for process in self._fit()) < self._options.workers:
                        if keeping.done():
                            keeping.result()
                        await asyncio.sleep(0.05)
        finally:
            keeping.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await keeping

    def _fit(self) -> list[Victim]:
        return [p for p in self._arena.living if not p.frozen and not p.doomed]

    async def _keep_up(self) -> None:
        measured = 0.0
        while True:
            await self._reap()
            awake = [p for p in self._arena.living if not p.doomed]
            if len(awake) < self._options.workers:
                await self._begin(proxied=not any(p.proxied for p in awake))
            for process in self._arena.living:
                if process.frozen and process.points and process.points[-1].endswith(" stop"):
                    process.points.append("woken")
                    asyncio.get_running_loop().call_later(self._nap_s(), process.send, signal.SIGCONT)
            if time.monotonic() - measured > 2:
                measured = time.monotonic()
                for process in self._arena.living:
                    process.measure()
            await asyncio.sleep(0.05)

    def _nap_s(self) -> float:
        return self._arena.pace.stale_s * self._rng.choice((0.3, 1.8))

    async def _reap(self) -> None:
        self._arena.examine_ends()
        self._find(self._arena.findings)
        self._arena.findings.clear()
        for process in [p for p in self._arena.processes if not p.running]:
            await process.wait()
            self._arena.processes.remove(process)
            self._ended.append(process)
            self._count(process)

    async def _begin(self, *, proxied: bool) -> None:
        first = not self._arena.processes
        url = self._proxy.url() if proxied else ""
        # The first one is spared by all that ends processes: its memory is watched.
        rules, without = ("", checkers.LETHAL) if first else (self._rules(), "")
        await self._arena.start(rules=rules, url=url, options=poison.OPTIONS, without=without)
        self.summary.processes += 1
        if self.summary.processes > self._options.workers:  # only the first ones start all at the same moment
            await asyncio.sleep(self._rng.uniform(0, 0.3))

    def _rules(self) -> str:
        """Return what a new worker will do to itself: small delays everywhere, perhaps something at a named point."""
        rules = [f"*=pause%{self._rng.choice((0, 0.01, 0.05))}"]
        if self._rng.random() < 0.6:
            point = f"{self._rng.choice([*POINTS])}.{self._rng.choice(('before', 'after'))}"
            action = self._rng.choice(("kill", "stop", "raise"))
            rules.append(f"{point}={action}@{self._rng.choice((1, 1, 2, 3, 5, 20, 100))}")
        return ",".join(rules)

    async def _examine(self, writers: Writers) -> None:
        self.summary.rounds += 1
        self.summary.settle_s.append(await self._arena.settle(self._options.workers, SETTLE_S))
        await poison.cure(self._arena, self._rng, SETTLE_S)
        self._find(await checkers.check(self._arena, [writers], self._book))
        self._arena.findings.clear()
        self._find(checkers.memory(self._arena.processes))
        self._find(checkers.deaths(self._arena, [*self._ended, *self._arena.processes]))
        over = {fate.position: fate.not_before for fate in writers.fates.values()}
        sql = "SELECT h.position, h.at FROM public.handled h WHERE h.projection = 'handled' AND h.replica_set = $1"
        for row in await self._arena.ask(f"{sql} AND h.position = ANY ($2::bigint[])", REPLICA_SET, [*over]):
            self.summary.delays_s.append((row["at"] - over[row["position"]]).total_seconds())
        self.summary.writes += writers.kinds
        self.summary.unknown += sum(fate.outcome == "unknown" for fate in writers.fates.values())
        self.summary.events = int(await self._arena.value("SELECT count(*) FROM reactive_orch.events"))
        rows = await self._arena.ask("SELECT g.reason, count(*) AS n FROM public.chaos_generations g GROUP BY g.reason")
        self.summary.reasons = Counter({row["reason"]: row["n"] for row in rows})
        self.summary.generations = self.summary.reasons.total()
        if self._options.seconds > ROUND_S:
            found = len(self.summary.findings)
            line = f"round {self.summary.rounds}: {self.summary.events} events, {self.summary.faults.total()} faults, "
            settled = f"settled in {self.summary.settle_s[-1]:.1f} s"
            sys.stdout.write(f"{line}{self.summary.generations} generations, {settled}, {found} findings\n")
            sys.stdout.flush()

    def _find(self, findings: Sequence[Finding]) -> None:
        self.summary.findings += findings

    def _count(self, process: Victim) -> None:
        self.summary.spells += process.deadlocks
        if process.ended_by:
            self.summary.ended_by[process.ended_by[0]] += 1
        self.summary.points.update(point for point in process.points if point != "woken")
        process.points.clear()

    def _summarise(self) -> None:
        for process in self._arena.processes:
            self._count(process)
        oldest = max([*self._arena.processes, *self._ended], key=lambda p: len(p.memory_kb), default=None)
        if oldest is not None and oldest.memory_kb:
            curve = [kb for _, kb in oldest.memory_kb]
            quarters = [curve[round((len(curve) - 1) * n / 4)] // 1024 for n in range(5)]
            self.summary.memory_mb = " → ".join(map(str, quarters)) + " MB"


async def storm(cluster: Cluster, options: Options) -> Summary:
    """Rage on one server; the summary says what was found."""
    with database(cluster, "chaos_storm") as url:
        await checkers.install(url)
        arena = Arena(cluster, url, random.Random(options.seed), env={planted.MUTANT: options.mutant})
        lethal = (checkers.LETHAL,) if options.lethal else ()
        arena.projections = (*arena.projections, checkers.POISONED, checkers.SHARING, *lethal)
        async with Proxy(url) as proxy:
            raging = Storm(arena, options, proxy)
            try:
                await raging.run()
            finally:
                await arena.close()
        return raging.summary


def main() -> int:
    """Run what the command line asks for."""
    defaults = Options()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=defaults.seconds)
    parser.add_argument("--minutes", type=float, help="instead of seconds")
    parser.add_argument("--seed", type=int, default=None, help="default: by chance, and printed")
    parser.add_argument("--workers", type=int, default=defaults.workers)
    parser.add_argument("--writers", type=int, default=defaults.writers)
    parser.add_argument("--faults-per-second", type=float, default=defaults.faults_per_s)
    parser.add_argument("--mutant", default="", help="plant a bug, see planted.py")
    parser.add_argument("--pg", default=chosen()[0], help="version")
    parser.add_argument("--report", type=Path, help="put the figures into this Markdown file")
    given = parser.parse_args()
    options = Options(
        seconds=given.minutes * 60 if given.minutes else given.seconds,
        seed=random.randrange(1 << 32) if given.seed is None else given.seed,
        workers=given.workers,
        writers=given.writers,
        faults_per_s=given.faults_per_second,
        mutant=given.mutant,
    )
    sys.stdout.write(f"seed {options.seed}\n")
    sys.stdout.flush()
    with Cluster(given.pg) as cluster:
        summary = asyncio.run(until_terminated(storm(cluster, options)))
    sys.stdout.write(f"{summary}\n")
    if given.report:
        put_section(given.report, "soak", summary.markdown(f"PostgreSQL {given.pg}, {machine()}"))
    return 1 if summary.findings else 0


if __name__ == "__main__":
    sys.exit(main())
