"""The bell: writers ring only while readers sleep, and no wake-up is lost between the two.

The fallback poll is switched off here, so an event that nobody rang for is never found: a lost wake-up cannot hide.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from typing import TYPE_CHECKING, Any, NamedTuple

import anyio
import pytest

from integration_test.harness.cases import thorough
from integration_test.harness.connections import connected
from integration_test.harness.waiting import wait_until
from reactive_orch.core import waking
from reactive_orch.core.frontier import Frontier
from reactive_orch.model import OWN_LOG, Log
from reactive_orch.postgres import log
from reactive_orch.postgres.channels import EVENTS_CHANNEL
from reactive_orch.postgres.database import Database
from reactive_orch.runtime.reading import ringing
from reactive_orch.runtime.reading.follower import LogFollower
from reactive_orch.runtime.wakeup import Wakeup

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence

    from integration_test.harness.cluster import Cluster
    from integration_test.harness.connections import Connection
    from reactive_orch.postgres.connection import BatchConnection

NEVER_S = 100_000.0
ARMED_MOST_S = 590.0
"""A bell that is armed for more than ten minutes does not ring."""
LEVELS = ("read_committed", "repeatable_read", "serializable")
RACE_S = 15.0
"""No race takes longer than this, except to prove a loss."""
ROUNDS_LEAST = 100
"""A machine too slow for so many rounds in the time races on."""
LOST_AFTER_S = 20.0
MUTANT_LOST_AFTER_S = 1.0
"""Shorter, as a mutant is expected to lose; a round takes a few milliseconds."""
INSERT = (
    "INSERT INTO reactive_orch.events (aggregate_type, aggregate_id, aggregate_version, event_type) "
    "VALUES ('Bell', gen_random_uuid()::text, 1, 'Rang') RETURNING global_position"
)
INSERT_MANY = INSERT.replace(
    "VALUES ('Bell', gen_random_uuid()::text, 1, 'Rang')",
    "SELECT 'Bell', gen_random_uuid()::text, 1, 'Rang' FROM generate_series(1, 20)",
)
HEAD = "SELECT max(global_position) FROM reactive_orch.events"
FENCE = "fence"
ARMED = (
    "SELECT coalesce(pg_sequence_last_value('reactive_orch.bell'::regclass), 9e18::bigint) "
    "> extract(epoch FROM clock_timestamp()) * 1000"
)


class Listening:
    """A follower of the log, and what its process heard."""

    def __init__(self, follower: LogFollower) -> None:
        self.follower = follower
        self.heard = 0
        self.fences = 0

    def hear(self, *notification: object) -> None:
        if notification[-1] == FENCE:
            self.fences += 1
        else:
            self.heard += 1
            self.follower.wakeup.set("notify")

    async def heard_by_now(self, connection: Connection) -> int:
        """Return how often somebody has rung so far: notifications arrive in the order of their commits."""
        seen = self.fences
        await connection.execute("SELECT pg_notify($1, $2)", EVENTS_CHANNEL, FENCE)
        await wait_until(lambda: _is_true(self.fences > seen), what="what was sent before has arrived")
        return self.heard

    async def reaches(self, position: int, timeout_s: float) -> bool:
        """Wait as a lane does: ask for one wake-up at a time, and look at the settled end."""
        with anyio.move_on_after(timeout_s):
            while (self.follower.settled or 0) < position:
                wakeup = Wakeup()
                self.follower.call(wakeup)
                await wakeup.wait()
        return (self.follower.settled or 0) >= position


@contextlib.asynccontextmanager
async def following(url: str, kind: type[LogFollower] = LogFollower) -> AsyncIterator[Listening]:
    """Run a follower and its ear; whoever waits for more keeps it looking."""
    database = Database(url, label="bell", connections_max=1, handler_timeout_s=5.0)
    await database.open()
    listening = Listening(kind(Log(OWN_LOG, 64), database, lambda: True, lambda _: None))
    try:
        async with connected(url) as ear, anyio.create_task_group() as tasks:
            await ear.add_listener(EVENTS_CHANNEL, listening.hear)
            tasks.start_soon(listening.follower.run)
            tasks.start_soon(_always_wants_more, listening.follower)
            await wait_until(
                lambda: _is_true(listening.follower.settled is not None), what="the follower knows the log"
            )
            yield listening
            tasks.cancel_scope.cancel()
    finally:
        await database.close()


async def _is_true(value: bool) -> bool:  # noqa: FBT001
    return value


async def _always_wants_more(follower: LogFollower) -> None:
    while True:
        wakeup = Wakeup()
        follower.call(wakeup)
        await wakeup.wait()


@pytest.fixture
def databases(cluster: Cluster, template: str) -> Iterator[list[str]]:
    """One fresh database for each isolation level: the races do not wake each other."""
    names = [f"bell_{level}" for level in LEVELS]
    yield [cluster.clone_database(template, name) for name in names]
    for name in names:
        cluster.drop_database(name)


@pytest.fixture
def no_poll(monkeypatch: pytest.MonkeyPatch) -> None:
    """No timer finds what nobody rang for."""
    monkeypatch.setattr(ringing, "POLL_S", NEVER_S)
    monkeypatch.setattr(ringing, "POLL_DEAF_S", NEVER_S)
    monkeypatch.setattr(ringing, "ARMED_S", ARMED_MOST_S)


@pytest.fixture
def arms_at_once(no_poll: None, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: ARG001
    """A reader that finds the bell disarmed believes it for one look, then arms, whatever the rate."""
    monkeypatch.setattr(waking, "WINDOW_S", 0.0)
    monkeypatch.setattr(waking, "ARM_BELOW_PER_S", float("inf"))
    monkeypatch.setattr(waking, "DISARM_ABOVE_PER_S", float("inf"))


class NoSecondLook(LogFollower):
    """Sleeps right after it has armed: its last look was before."""

    async def _sleep(self, connection: BatchConnection) -> None:
        armed_until_s = self.ringing._armed_until_s  # noqa: SLF001 - the bug is in the two
        await super()._sleep(connection)
        if self.ringing._armed_until_s > armed_until_s:  # noqa: SLF001
            await super()._sleep(connection)


class BlindToWriters(LogFollower):
    """Looks once more after it has armed, and sleeps although it saw a writer in flight."""

    async def _look(self, connection: BatchConnection) -> None:
        await super()._look(connection)
        self._frontier = Frontier(self._frontier.settled, incarnation=self._frontier.incarnation)


class Limits(NamedTuple):
    """When an event counts as lost, and when a race is over."""

    lost_after_s: float
    enough: int
    """So many lost events prove it."""
    race_s: float = RACE_S


async def race(urls: Sequence[str], kind: type[LogFollower], limits: Limits) -> tuple[int, int]:
    """Let writers race with readers that go to sleep, one database for each isolation level.

    Return the rounds, and how many events were not found.
    """
    races = [_race(url, kind, level, limits) for url, level in zip(urls, LEVELS, strict=True)]
    rounds, lost = zip(*await asyncio.gather(*races), strict=True)
    return sum(rounds), sum(lost)


async def _race(url: str, kind: type[LogFollower], level: Any, limits: Limits) -> tuple[int, int]:
    rounds = lost = 0
    chance = random.Random(level)
    async with following(url, kind) as listening, connected(url) as other, connected(url) as writer:
        began = time.monotonic()
        while lost < limits.enough:
            if time.monotonic() - began > limits.race_s and rounds >= ROUNDS_LEAST:
                break
            rounds += 1
            _, position = await asyncio.gather(log.arm(other, OWN_LOG, 0), _write(writer, level, chance))
            if not await listening.reaches(position, limits.lost_after_s):
                lost += 1
                listening.follower.wake()
                assert await listening.reaches(position, LOST_AFTER_S), "found when looked for"
    return rounds, lost


async def _write(writer: Connection, level: Any, chance: random.Random) -> int:
    await asyncio.sleep(chance.uniform(0, 0.003))
    async with writer.transaction(isolation=level):
        position = int(await writer.fetchval(INSERT))
        await asyncio.sleep(chance.uniform(0, 0.003))
    return position


@pytest.mark.parametrize("race_s", [RACE_S / 2, thorough(60.0)])
@pytest.mark.usefixtures("arms_at_once")
async def test_no_wake_up_is_lost_between_arming_and_sleeping(databases: Sequence[str], race_s: float) -> None:
    rounds, lost = await race(databases, LogFollower, Limits(LOST_AFTER_S, 1, race_s))
    assert lost == 0, f"{lost} of {rounds}"


@pytest.mark.parametrize("kind", [NoSecondLook, BlindToWriters])
@pytest.mark.usefixtures("arms_at_once")
async def test_without_the_barrier_wake_ups_are_lost(databases: Sequence[str], kind: type[LogFollower]) -> None:
    rounds, lost = await race(databases, kind, Limits(MUTANT_LOST_AFTER_S, 2))
    assert lost, f"none of {rounds}: the race would not find a bell that loses wake-ups"


async def write_much(connection: Connection, until: Sequence[object]) -> None:
    """Append some thousand events a second until `until` holds something."""
    while not until:
        await connection.fetch(INSERT_MANY)


async def armed(connection: Connection) -> bool:
    return bool(await connection.fetchval(ARMED))


async def disarmed(connection: Connection) -> bool:
    return not await armed(connection)


async def _written(connection: Connection, events: int) -> None:
    """Wait until so many more events are in the log."""
    before = await connection.fetchval(HEAD)

    async def written() -> bool:
        return bool(await connection.fetchval(HEAD) >= before + events)

    await wait_until(written, what=f"{events} more events are written")


@pytest.mark.usefixtures("no_poll")
@pytest.mark.each_server
async def test_a_busy_log_disarms_the_bell_and_a_quiet_one_arms_it(database: str) -> None:
    async with connected(database) as connection, connected(database) as writer, following(database) as listening:
        await wait_until(lambda: armed(connection), what="armed while nothing is written")

        stop: list[object] = []
        writing = asyncio.create_task(write_much(writer, stop))
        await wait_until(lambda: disarmed(connection), what="disarmed while much is written")
        await _written(connection, 40)  # whoever saw it armed has committed
        before = await listening.heard_by_now(connection)
        await _written(connection, 1000)
        assert await listening.heard_by_now(connection) == before, "nobody rings"
        assert await disarmed(connection)
        stop.append(True)
        await writing
        last = await connection.fetchval(HEAD)
        assert await listening.reaches(last, LOST_AFTER_S), "read without being rung for"

        await wait_until(lambda: armed(connection), what="armed when it is quiet again")
        before = listening.heard
        position = await writer.fetchval(INSERT)
        assert await listening.reaches(position, LOST_AFTER_S)
        await wait_until(lambda: _is_true(listening.heard > before), what="the writer rings")


@pytest.mark.usefixtures("no_poll")
@pytest.mark.each_server
async def test_a_busy_log_disarms_the_bell_although_somebody_always_holds_the_frontier(database: str) -> None:
    """As many writers do in turn: else each waits for the bell of the one before, and all of them for ever."""
    async with (
        connected(database) as connection,
        connected(database) as writer,
        connected(database) as holder,
        following(database),
        holder.transaction(),
    ):
        await holder.execute(INSERT)
        stop: list[object] = []
        writing = asyncio.create_task(write_much(writer, stop))
        try:
            await wait_until(lambda: disarmed(connection), what="disarmed while much is written")
        finally:
            stop.append(True)
            await writing


@pytest.mark.usefixtures("no_poll")
@pytest.mark.each_server
async def test_writers_in_line_for_the_bell_disarm_it_whatever_the_rate(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a flush is slow, writers that ring one after the other never reach the rate that would free them."""
    monkeypatch.setattr(waking, "DISARM_ABOVE_PER_S", float("inf"))
    async with contextlib.AsyncExitStack() as stack:
        connection = await stack.enter_async_context(connected(database))
        writers = [await stack.enter_async_context(connected(database)) for _ in range(8)]
        await stack.enter_async_context(following(database))
        await wait_until(lambda: armed(connection), what="armed while nothing is written")
        stop: list[object] = []
        writing = [asyncio.create_task(write_much(writer, stop)) for writer in writers]
        try:
            await wait_until(lambda: disarmed(connection), what="disarmed, as they wait for each other")
        finally:
            stop.append(True)
            await asyncio.gather(*writing)


LOOKS_COUNTED_S = 1.0


@pytest.mark.usefixtures("no_poll")
@pytest.mark.parametrize("held", [False, True])
async def test_while_much_is_written_a_reader_gathers(
    database: str, monkeypatch: pytest.MonkeyPatch, *, held: bool
) -> None:
    """Each look and its batch cost the writers something; whether one of them holds the frontier or not."""
    looks: list[log.Look] = []

    async def counted(connection: Any, *wanted: Any) -> log.Look:
        looks.append(await observe(connection, *wanted))
        return looks[-1]

    observe = log.observe
    monkeypatch.setattr(log, "observe", counted)
    async with (
        connected(database) as connection,
        connected(database) as writer,
        connected(database) as holder,
        following(database),
        holder.transaction(),
    ):
        if held:
            await holder.execute(INSERT)
        stop: list[object] = []
        writing = asyncio.create_task(write_much(writer, stop))
        try:
            await wait_until(lambda: disarmed(connection), what="disarmed while much is written")
            await asyncio.sleep(2 * waking.WINDOW_S)  # the rate is that of the last window
            looks.clear()
            await asyncio.sleep(LOOKS_COUNTED_S)
            assert 0 < len(looks) <= 1 + LOOKS_COUNTED_S / waking.LOOK_MOST_S
        finally:
            stop.append(True)
            await writing


@pytest.mark.usefixtures("no_poll")
@pytest.mark.each_server
async def test_a_reader_that_finds_the_bell_disarmed_serves_at_once_and_arms_it(database: str) -> None:
    async with connected(database) as connection, connected(database) as writer:
        await connection.execute("SELECT setval('reactive_orch.bell', 0)")
        async with following(database) as listening:
            began = time.monotonic()
            assert await listening.reaches(await writer.fetchval(INSERT), LOST_AFTER_S)
            assert time.monotonic() - began < 2.0
            await wait_until(lambda: armed(connection), what="armed")
            assert await listening.reaches(await writer.fetchval(INSERT), LOST_AFTER_S)


@pytest.mark.usefixtures("no_poll")
@pytest.mark.each_server
async def test_a_reader_asleep_hears_that_another_has_disarmed_the_bell(database: str) -> None:
    async with connected(database) as other, following(database) as listening:
        await wait_until(lambda: armed(other))
        await log.arm(other, OWN_LOG, 0)
        assert await listening.reaches(await other.fetchval(INSERT), LOST_AFTER_S)


@pytest.mark.usefixtures("no_poll")
@pytest.mark.each_server
async def test_a_bell_that_was_never_set_counts_as_armed(database: str) -> None:
    async with connected(database) as connection, connected(database) as ear:
        assert await connection.fetchval("SELECT pg_sequence_last_value('reactive_orch.bell'::regclass)") is None
        assert not (await log.observe(connection, OWN_LOG, 0)).disarmed
        heard: list[object] = []
        await ear.add_listener(EVENTS_CHANNEL, lambda *_: heard.append(1))
        await connection.fetchval(INSERT)
        await wait_until(lambda: _is_true(bool(heard)), what="the writer rings")
