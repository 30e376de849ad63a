"""One fault each, as short as it can be. The product passes them all; a planted bug fails one of them, or a test."""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from integration_test.chaos import planted
from integration_test.harness import points, poison
from integration_test.harness import projections as test_projections
from integration_test.harness import recorded as checkers
from integration_test.harness.arena import PARTITIONS, REPLICA_SET, Arena, Caught, Finding, Pace
from integration_test.harness.cluster import copied
from integration_test.harness.connections import connected
from integration_test.harness.load import Habits, Writers
from integration_test.harness.proxy import Proxy
from integration_test.harness.recorded import LETHAL, POISONED, SHARING
from reactive_orch import NewEvent, append

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from integration_test.harness.arena import Victim
    from integration_test.harness.cluster import Cluster

ADOPTED = r"generation \d+ of .* adopted in"
QUICK = Pace(heartbeat_s=0.1, stale_s=0.6, batch=20)
CALM = Pace(heartbeat_s=1.0, stale_s=10.0, batch=20)
LAST_KEY = "one key, one partition"
PROMPTLY_S = 1.0
"""Far above what a notification takes, far below the fallback polls as these scenarios set them."""


@dataclass(slots=True)
class Stage:
    """What a scenario plays on."""

    arena: Arena
    template: str
    writers: list[Writers]

    def writing(self, count: int = 4, habits: Habits | None = None, url: str = "") -> Writers:
        """Return writers to be entered; the checkers hear of them."""
        made = Writers(url or self.arena.url, self.arena.rng, count, habits)
        self.writers.append(made)
        return made


SCENARIOS: dict[str, Callable[[Stage], Awaitable[None]]] = {}


def _scenario(function: Callable[[Stage], Awaitable[None]]) -> Callable[[Stage], Awaitable[None]]:
    SCENARIOS[function.__name__] = function
    return function


async def play(cluster: Cluster, template: str, name: str, mutant: str = "", seed: int = 1) -> list[Finding]:
    """Play one scenario on a copy of the template, a migrated database; return what the checkers found."""
    with copied(cluster, f"chaos_{name}", template) as url:
        arena = Arena(cluster, url, random.Random(seed), QUICK, env={planted.MUTANT: mutant})
        await checkers.install(url)
        if sql := planted.schema(mutant):
            await _run_sql(url, sql)
        stage = Stage(arena, template, [])
        try:
            await SCENARIOS[name](stage)
            found = await checkers.check(arena, stage.writers)
            if not found:
                await arena.stop_workers()
                found = [*arena.findings, *(await checkers.leaks(arena))]
        except Caught as caught:
            # What had happened by then is often the better explanation.
            found = [caught.finding, *(await checkers.check(arena, stage.writers))]
        finally:
            await arena.close()
        return found


async def _run_sql(url: str, sql: str) -> None:
    async with connected(url) as connection:
        await connection.execute(sql)


async def _rises(arena: Arena, sql: str, by: int, what: str) -> None:
    start = await arena.value(sql)

    async def risen() -> bool:
        return bool(await arena.value(sql) >= start + by)

    await arena.until(risen, what)


_HANDLED = "SELECT count(*) FROM public.handled"


async def _gone(arena: Arena, process: Victim) -> None:
    """Wait until the others have removed this worker and own its partitions."""

    async def removed() -> bool:
        return all(f":{process.pid}:" not in member["name"] for member in await arena.members())

    await arena.until(removed, f"{process.name} is removed")


@_scenario
async def zombie(stage: Stage) -> None:
    """A worker freezes just before its swap, is replaced, and wakes: its connections were spared."""
    arena = stage.arena
    arena.projections = ("handled",)  # a frozen batch of another one would keep its rows for ever
    await _run_sql(arena.url, _SPARE)
    a = await arena.start(rules="swap.before=stop@12")
    await a.said(ADOPTED)
    await arena.start()
    async with stage.writing():
        await arena.until(_is(lambda: a.frozen), "the first worker is frozen before its swap")
        await _gone(arena, a)
        await _rises(arena, _HANDLED, 300, "the other goes on")
    # No batch of the other may lock the zombie's rows by chance: nothing but the comparison is to stop it.
    await arena.until(arena.all_handled, "the other has handled everything")
    a.send(signal.SIGCONT)
    async with stage.writing():
        await _rises(arena, _HANDLED, 100, "both go on")
    await arena.settle(2)


_SPARE = """
CREATE OR REPLACE FUNCTION reactive_orch.terminate_backends(in_names text[]) RETURNS integer
LANGUAGE sql AS $$ SELECT cardinality(in_names) $$
"""


def _is(predicate: Callable[[], bool]) -> Callable[[], Awaitable[bool]]:
    async def wrapped() -> bool:
        return predicate()

    return wrapped


@_scenario
async def commits_out_of_order(stage: Stage) -> None:
    """Writers hold back, roll back and prepare; a worker is killed in the middle."""
    arena = stage.arena
    arena.projections = ("handled",)
    async with stage.writing(habits=Habits(roll_back=0.3)):
        a = await arena.start()
        await arena.start()
        await a.said(ADOPTED)
    async with stage.writing(6, Habits(pause_s=0.005, hold=0.6, hold_s=0.02, prepare=0.15)):
        await _rises(arena, _HANDLED, 400, "events are handled")
        a.send(signal.SIGKILL)
        await _rises(arena, _HANDLED, 400, "events are handled")
    await arena.settle(1)


@_scenario
async def churn(stage: Stage) -> None:
    """Workers join and leave in good order, under load, with a backlog and handlers that take their time."""
    arena = stage.arena
    arena.pace = CALM
    arena.projections = ("handled", "handled_slowly")
    env = {test_projections.SLEEP: "0.004", points.SAVE: "0.05"}
    async with stage.writing(habits=Habits(pause_s=0.001, hold=0)):
        await asyncio.sleep(0.7)
    a = await arena.start(env=env)
    await a.said(ADOPTED)
    async with stage.writing(3, Habits(pause_s=0.05)):
        for _ in range(2):
            b = await arena.start(env=env)
            await b.said(ADOPTED)
            c = await arena.start(env=env)
            await c.said(ADOPTED)
            await _rises(arena, _HANDLED, 60, "three go on")
            for process in (b, c):
                process.send(signal.SIGTERM)
                await process.wait()
        await _rises(arena, _HANDLED, 60, "one goes on")
    await arena.settle(1)


@_scenario
async def backlog(stage: Stage) -> None:
    """Half of the partitions have a backlog, as somebody has held their rows: fresh events of the others go first."""
    arena = stage.arena
    arena.projections = ("handled",)
    await _end(await _adopted(arena))
    async with connected(arena.url) as rival:
        await rival.execute(_OLD_EVENTS)
        async with rival.transaction():
            await rival.execute("SELECT FROM reactive_orch.checkpoints WHERE partition % 2 = 0 FOR UPDATE")
            ahead = await arena.start()
            await arena.until(_is_zero(arena, _UNHANDLED, 1), "the other half has been handled", timeout_s=40)
            await _end(ahead)
    await _adopted(arena)  # all partitions come to it at once
    async with connected(arena.url) as connection:
        keys = await connection.fetch(_ODD_KEYS)
        await append(connection, [_event(row["aggregate_id"]) for row in keys])
    await arena.settle(1, timeout_s=40)
    if not await arena.value(_HANDLED_AFTER_FRESH):
        raise Caught(Finding("latency", "fresh events waited until the backlog was worked off"))


async def _adopted(arena: Arena) -> Victim:
    victim = await arena.start()
    await victim.said(ADOPTED)
    return victim


async def _end(victim: Victim) -> None:
    victim.send(signal.SIGTERM)
    await victim.wait()


def _is_zero(arena: Arena, sql: str, *args: object) -> Callable[[], Awaitable[bool]]:
    async def zero() -> bool:
        return not await arena.value(sql, *args)

    return zero


_OLD_EVENTS = """
INSERT INTO reactive_orch.events (aggregate_type, aggregate_id, aggregate_version, event_type)
SELECT 'Other', 'other-' || n % 400, n / 400 + 1, 'Old' FROM generate_series(0, 7999) AS n
"""
_UNHANDLED = """
SELECT count(*) FROM reactive_orch.events e WHERE e.partition % 2 = $1
  AND NOT EXISTS (SELECT FROM public.handled h WHERE h.position = e.global_position)
"""
_ODD_KEYS = "SELECT DISTINCT aggregate_id FROM reactive_orch.events WHERE partition % 2 = 1 LIMIT 3"
_HANDLED_AFTER_FRESH = """
SELECT count(*) FROM public.handled h
WHERE h.partition % 2 = 0 AND h.id > (SELECT max(f.id) FROM public.handled f WHERE f.position > 8000)
"""


@_scenario
async def started_over(stage: Stage) -> None:
    """An operator rewinds to where the checkpoints are: every worker's memory is invalid, nothing else changes."""
    arena = stage.arena
    arena.pace = CALM
    for process in [await arena.start() for _ in range(2)]:
        await process.said(ADOPTED)
    async with stage.writing():
        for _ in range(3):
            await _rises(arena, _HANDLED, 60, "events are handled")
            for projection in arena.projections:
                await arena.ask("SELECT reactive_orch.rewind($1, $2, NULL)", REPLICA_SET, projection)
    await arena.settle(2, timeout_s=8)


@_scenario
async def older_state(stage: Stage) -> None:
    """The server fails over to a copy that lacks the last events; their positions are used again."""
    await _fail_over(stage, blip=False)


@_scenario
async def older_state_after_a_blip(stage: Stage) -> None:
    """The same, when the process has lost a single connection before: it must notice the second loss as well."""
    await _fail_over(stage, blip=True)


async def _fail_over(stage: Stage, *, blip: bool) -> None:
    arena, first, copy = stage.arena, stage.arena.url, "chaos_copy"
    arena.pace = Pace(heartbeat_s=1, stale_s=30, batch=20)  # its membership outlives all this
    async with Proxy(first) as proxy:
        # Nothing is saved lazily: of partitions without events it remembers more than the database knows.
        a = await arena.start(url=proxy.url(), env={points.SAVE: "60"})
        await a.said(ADOPTED)
        async with Writers(first, arena.rng):
            await _rises(arena, _HANDLED, 100, "events are handled")
        await arena.settle(1)
        await _cut_off(arena, proxy)
        with copied(arena.cluster, copy, _name(first)):
            proxy.accept()
            await a.said("membership connection is back")
            if blip:
                async with Writers(first, arena.rng):
                    await _lose_one(arena)
            async with connected(first) as connection:
                for _ in range(300):
                    await append(connection, [_event(LAST_KEY)])
            await arena.settle(1)
            await _cut_off(arena, proxy)
            await _swap_names(arena, _name(first), copy)
            arena.settled_to = 0
            await _other_future(stage, proxy)
            await arena.stop_workers()


def _name(url: str) -> str:
    return url.rpartition("/")[2]


async def _cut_off(arena: Arena, proxy: Proxy) -> None:
    proxy.hold()
    proxy.cut()
    async with connected(arena.cluster.url()) as connection:

        async def alone() -> bool:
            sql = "SELECT count(*) FROM pg_stat_activity WHERE datname = $1"
            return not await connection.fetchval(sql, _name(arena.url))

        await arena.until(alone, "the server has noticed that the connections are cut")


async def _swap_names(arena: Arena, one: str, other: str) -> None:
    async with connected(arena.cluster.url()) as connection:
        for name, new in ((one, "chaos_third"), (other, one), ("chaos_third", other)):
            await connection.execute(f"ALTER DATABASE {name} RENAME TO {new}")


async def _lose_one(arena: Arena) -> None:
    async def lost() -> bool:
        sql = """
        SELECT pg_terminate_backend(a.pid) FROM pg_stat_activity a
        WHERE a.application_name LIKE 'reactive\\_orch:work:%' AND a.state <> 'idle' AND a.datname = current_database()
        """
        return bool(await arena.ask(sql))

    for _ in range(3):
        await arena.until(lost, "a batch loses its connection")
    await _rises(arena, _HANDLED, 50, "events are handled again")


async def _other_future(stage: Stage, proxy: Proxy) -> None:
    arena = stage.arena
    async with connected(arena.url) as slow, connected(arena.url) as quick:
        keys = [row["key"] for row in await quick.fetch(_ELSEWHERE, LAST_KEY, PARTITIONS - 1)]
        await slow.execute("BEGIN")
        await append(slow, [_event(key) for key in keys[:5]])
        for _ in range(30):
            async with quick.transaction():
                await append(quick, [_event(key) for key in keys[5:]])
        proxy.accept()
        await asyncio.sleep(1.5)
        await slow.execute("COMMIT")
    await arena.settle(1)


# Not in the partition of LAST_KEY: there the worker remembers a later checkpoint, and its swap would fail at once.
_ELSEWHERE = """
SELECT 'other-' || n AS key FROM generate_series(1, 40) n
WHERE hashtextextended('other-' || n, 0) & $2 <> hashtextextended($1, 0) & $2
"""


def _event(key: str) -> NewEvent:
    return NewEvent(aggregate_type="Other", aggregate_id=key, event_type="Other")


@_scenario
async def gap_before_listening(stage: Stage) -> None:
    """An event is committed just after a worker has started, or is connected again: no fallback poll is needed."""
    arena = stage.arena
    arena.pace = CALM
    a = await arena.start(env={points.POLL: "30"})
    await a.said(ADOPTED)
    await _promptly(arena, "after the start")
    for times in (1, 2):
        await arena.ask(_TERMINATE, "membership")
        await a.said("membership connection is back", times=times)
        await _promptly(arena, "after a lost membership connection")
    await arena.settle(1)


_TERMINATE = """
SELECT pg_terminate_backend(a.pid) FROM pg_stat_activity a
WHERE a.application_name LIKE 'reactive\\_orch:' || $1 || ':%' AND a.datname = current_database()
"""


async def _promptly(arena: Arena, when: str) -> None:
    async with connected(arena.url) as connection:
        await append(connection, [_event(f"prompt-{when}-{time.monotonic()}")])
    await arena.until(arena.all_handled, f"an event is handled {when}", checker="latency", timeout_s=PROMPTLY_S)


@_scenario
async def server_restart(stage: Stage) -> None:
    """The server restarts, every lock is gone: nobody who comes back is expelled, however late."""
    arena = stage.arena
    arena.pace = CALM
    three = [await arena.start(rules=rules) for rules in ("", "", "resume.before=stop@1")]
    for process in three:
        await process.said(ADOPTED)
    await arena.settle(3)
    before = await arena.value("SELECT generation FROM reactive_orch.replica_sets")
    for times in (1, 2):
        await asyncio.to_thread(arena.cluster.restart, "immediate")
        if times == 1:
            await arena.until(_is(lambda: three[2].frozen), "the third is frozen before it resumes")
            await asyncio.sleep(3.5)  # by then the others trust free locks again
            three[2].send(signal.SIGCONT)
        for process in three:
            await process.said("membership connection is back", times=times)
    async with stage.writing():
        await _rises(arena, _HANDLED, 100, "events are handled")
    after = await arena.value("SELECT generation FROM reactive_orch.replica_sets")
    if after != before:
        raise Caught(Finding("generations", f"a restart cost {after - before} generations"))
    await arena.settle(3)


@_scenario
async def common_outage(stage: Stage) -> None:
    """All are cut off for longer than a heartbeat may be late: whoever is back first waits for the others."""
    arena = stage.arena
    arena.pace = Pace(heartbeat_s=0.3, stale_s=1.0, batch=20)
    async with Proxy(arena.url) as one, Proxy(arena.url) as other:
        first, second = [await arena.start(url=proxy.url()) for proxy in (one, other)]
        for process in (first, second):
            await process.said(ADOPTED)
        await arena.settle(2)
        before = await arena.value(_GENERATION)
        for proxy in (one, other):
            proxy.hold()
            proxy.cut()
        await _rises(arena, _YOUNGEST_BEAT_S, 2, "all heartbeats are stale")
        one.accept()
        await first.said("membership connection is back")
        await asyncio.sleep(1)  # it looks at once, and could expel the other
        other.accept()
        await second.said("membership connection is back")
        async with stage.writing():
            await _rises(arena, _HANDLED, 100, "events are handled")
        await arena.settle(2)
        after = await arena.value(_GENERATION)
        if after != before:
            raise Caught(Finding("generations", f"a common outage cost {after - before} generations"))
        await arena.stop_workers()


_GENERATION = "SELECT generation FROM reactive_orch.replica_sets"
_YOUNGEST_BEAT_S = (
    "SELECT extract(epoch FROM clock_timestamp() - max(heartbeat_at))::integer FROM reactive_orch.members"
)


@_scenario
async def newcomer_after_an_outage(stage: Stage) -> None:
    """Whoever comes first when a common outage ends finds old heartbeats, and expels nobody for them."""
    arena = stage.arena
    arena.pace = Pace(heartbeat_s=0.3, stale_s=STALE_S, batch=20)
    async with Proxy(arena.url) as one, Proxy(arena.url) as other:
        for proxy in (one, other):
            await (await arena.start(url=proxy.url())).said(ADOPTED)
        for _ in range(OUTAGES_MOST):
            joined = await _joins_in_an_outage(arena, (one, other))
            if joined.proves:
                break
        if joined.proves and joined.cost != 1:
            raise Caught(Finding("generations", f"a newcomer's join cost {joined.cost} generations"))
        await arena.stop_workers()


STALE_S = 1.5
CUT_OFF_MOST_S = 2.7
"""Whoever has no answer to a heartbeat for 3 s ends its connections, and is expelled with good reason."""
HEARD_AGAIN_AFTER_S = STALE_S - 0.2
"""So is whoever has not been heard since the newcomer came for as long as its heartbeats may be late."""
OUTAGES_MOST = 6
"""A machine on which all of these take too long proves nothing at all."""
_ALL_STALE = "SELECT bool_and(clock_timestamp() - m.heartbeat_at > m.stale_after) FROM reactive_orch.members m"
_ALL_HEARD = "SELECT bool_and(clock_timestamp() - m.heartbeat_at < m.stale_after) FROM reactive_orch.members m"


@dataclass(frozen=True, slots=True)
class _Joined:
    """What a join in an outage of the others has come to."""

    cost: int
    """Generations."""
    heard_again_s: float
    """From when the newcomer came until all were heard."""
    cut_off_s: float
    """For how long the others were."""

    @property
    def proves(self) -> bool:
        """Whether nobody could be expelled with good reason: on a busy machine all takes longer."""
        return self.heard_again_s <= HEARD_AGAIN_AFTER_S and self.cut_off_s <= CUT_OFF_MOST_S


async def _joins_in_an_outage(arena: Arena, proxies: tuple[Proxy, Proxy]) -> _Joined:
    """Let somebody join while the others are cut off, and these come back at once."""
    newcomer = await arena.start(rules="start.after=stop@1")
    await arena.until(_is(lambda: newcomer.frozen), "the newcomer has loaded its code")
    await arena.settle(2)
    before, began = await arena.value(_GENERATION), time.monotonic()
    for proxy in proxies:
        proxy.swallow()
    await arena.until(lambda: arena.value(_ALL_STALE), "all heartbeats are stale")
    # Only now: who has waited for an answer distrusts what it sees for that, too, as soon as it beats.
    newcomer.send(signal.SIGCONT)
    came = time.monotonic()
    await _rises(arena, _GENERATION, 1, "the newcomer has joined")
    for proxy in proxies:
        proxy.flow()
    cut_off_s = time.monotonic() - began
    await arena.until(lambda: arena.value(_ALL_HEARD), "all are heard again")
    heard_again_s = time.monotonic() - came
    await newcomer.said(ADOPTED)
    await arena.settle(3)
    cost = await arena.value(_GENERATION) - before
    newcomer.send(signal.SIGTERM)
    await newcomer.wait(20)
    return _Joined(cost, heard_again_s, cut_off_s)


@_scenario
async def join_without_an_answer(stage: Stage) -> None:
    """A worker's row is written, but the answer is lost: the orphan must be gone long before it is stale."""
    arena = stage.arena
    arena.pace = CALM
    a = await arena.start()
    await a.said(ADOPTED)
    b = await arena.start(rules="join.after=raise@1")
    async with stage.writing():
        await b.said(ADOPTED)
        await _rises(arena, _HANDLED, 100, "events are handled")
    await arena.settle(2, timeout_s=5)


@_scenario
async def acknowledged_without_an_answer(stage: Stage) -> None:
    """A change, an acknowledgement, a take-over and a commit are executed, and no answer arrives."""
    arena = stage.arena
    rules = (
        "announce.after=raise@1,acknowledge.after=raise@1,take.after=raise@2,commit.after=raise@5,commit.before=raise@9"
    )
    async with stage.writing():
        for _ in range(3):
            process = await arena.start(rules=rules)
            with contextlib.suppress(Caught):
                await process.said(ADOPTED, timeout_s=8)
        await _rises(arena, _HANDLED, 200, "events are handled")
    await arena.settle(3)


@_scenario
async def deaf_worker(stage: Stage) -> None:
    """The network swallows a worker's membership connection, then all its connections, while it has batches in hand."""
    arena = stage.arena
    await arena.start()
    async with Proxy(arena.url) as proxy, stage.writing():
        b = await arena.start(url=proxy.url())
        await b.said(ADOPTED)
        proxy.swallow("membership")
        await _gone(arena, b)
        await _rises(arena, _HANDLED, 100, "events are handled")
        proxy.flow()
        await arena.until(lambda: arena.is_settled(2), "it is back", timeout_s=20)
        proxy.swallow()
        await _gone(arena, b)
        await _rises(arena, _HANDLED, 100, "events are handled")
        proxy.flow()
        await arena.until(lambda: arena.is_settled(2), "it is back again", timeout_s=20)
        for stable in stage.writers:
            await stable.stop()
        await arena.settle(2)
        b.send(signal.SIGTERM)
        await b.wait()


@_scenario
async def poisoned_keys(stage: Stage) -> None:
    """Keys fail, wait, are retried, parked and left out while workers die and come; cured, all that waits drains."""
    arena = stage.arena
    arena.projections = ("handled", POISONED)
    for _ in range(2):
        await arena.start(options=poison.OPTIONS)
    async with stage.writing(3):
        for _ in range(4):
            await poison.poison(arena, arena.rng, keys=6)
            newcomer = await arena.start(options=poison.OPTIONS)
            await newcomer.said(ADOPTED)
            await poison.ask(arena, arena.rng, ["retry", "skip", "discard", "retry"])
            arena.rng.choice(arena.living).send(signal.SIGKILL)
            await _rises(arena, _HANDLED, 100, "work goes on")
    await arena.settle(len(arena.living))
    await poison.cure(arena, arena.rng)


@_scenario
async def shared_rows(stage: Stage) -> None:
    """Handlers on several workers write the same rows and deadlock, while one of them is killed and another comes."""
    arena = stage.arena
    arena.projections = (SHARING,)
    async with stage.writing(habits=Habits(pause_s=0.001, hold=0)):
        await asyncio.sleep(0.7)
        a, *_ = [await arena.start() for _ in range(3)]
        await arena.until(lambda: arena.value(_DEADLOCKS), "handlers have deadlocked")
        a.send(signal.SIGKILL)
        await (await arena.start()).said(ADOPTED)
        await _rises(arena, _HANDLED, 300, "work goes on")
    await arena.settle(3)


_DEADLOCKS = "SELECT s.deadlocks FROM pg_stat_database s WHERE s.datname = current_database()"


@_scenario
async def lethal_event(stage: Stage) -> None:
    """An event ends each process that handles it, others are started in their place, and at last it is parked."""
    arena = stage.arena
    arena.projections = ("handled", LETHAL)
    for _ in range(2):
        await (await arena.start()).said(ADOPTED)

    async def parked() -> bool:
        if len(arena.living) < 2:
            await arena.start()
        if found := checkers.deaths(arena, arena.processes):
            raise Caught(found[0])
        return bool(await arena.value("SELECT count(*) FROM reactive_orch.failing_keys k WHERE k.state = 'parked'"))

    async with stage.writing(2):
        await poison.poison_lethally(arena, arena.rng)
        await arena.until(parked, "what ends its process is parked", timeout_s=120)
    await arena.settle(2)
    await poison.cure(arena, arena.rng)


@_scenario
async def paused(stage: Stage) -> None:
    """A projection is paused while its owners die and come: nobody handles anything of it before it is resumed."""
    arena = stage.arena
    for _ in range(2):
        await arena.start()
    async with stage.writing():
        await _rises(arena, _HANDLED, 100, "work goes on")
        await arena.ask(_SET_STATE, REPLICA_SET, "handled", "paused")
        for process in arena.living:
            await process.said("projection handled is paused")
        handled = await _at_rest(arena)
        arena.living[0].send(signal.SIGKILL)
        newcomer = await arena.start()
        await newcomer.said(ADOPTED)
        await _rises(arena, _HANDLED, 300, "the other projection goes on")
        if await arena.value(_HANDLED_OF, "handled") != handled:
            raise Caught(Finding("paused", "a paused projection has handled events"))
        await arena.ask(_SET_STATE, REPLICA_SET, "handled", "running")
    await arena.settle(2)


_SET_STATE = "SELECT reactive_orch.set_projection_state($1, $2, $3, '', 'chaos')"
_HANDLED_OF = "SELECT count(*) FROM public.handled h WHERE h.projection = $1"


async def _at_rest(arena: Arena) -> int:
    """Wait until the batches in hand of `handled` have ended; return how many events it has handled."""
    counts = [-1]

    async def stays() -> bool:
        counts.append(await arena.value(_HANDLED_OF, "handled"))
        await asyncio.sleep(0.3)
        return counts[-1] == counts[-2]

    await arena.until(stays, "the paused projection rests")
    return counts[-1]
