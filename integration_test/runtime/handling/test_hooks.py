"""Hooks: what a cache that lives with partitions is told, so that nothing stale is ever served from it."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import pytest

from integration_test.harness.connections import connected, prepared
from integration_test.harness.in_process import event, serving
from integration_test.harness.waiting import wait_until
from reactive_orch import Config, Hooks, Node, Projection, Worker, append, dead_letters, projection
from reactive_orch.model import OWN_LOG, Subscription
from reactive_orch.postgres.projections import StateChange, set_state
from reactive_orch.runtime.handling.hooked import Hooked

if TYPE_CHECKING:
    from collections.abc import Sequence

    from integration_test.harness.connections import Connection
    from reactive_orch import Event
    from reactive_orch.model.membership import Resting
    from reactive_orch.model.reports import Subject

KEYS = 12
TABLES = "CREATE TABLE totals (key text PRIMARY KEY, total bigint NOT NULL)"
KILL = """SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE datname = current_database() AND application_name LIKE 'reactive_orch:work:%'"""


class Totals(Hooks):
    """A cache of a projection's own rows, by partition; it is asked before each write whether it is right."""

    def __init__(self) -> None:
        self.of: dict[int, dict[str, int]] = defaultdict(dict)
        self.held: set[int] = set()
        self.hits = 0
        self.wrong: list[str] = []

    def took(self, subject: Subject, partitions: frozenset[int]) -> None:
        assert subject.projection == "totals"
        self.held |= partitions

    def lost(self, _subject: Subject, partitions: frozenset[int]) -> None:
        self.held -= partitions
        for partition in partitions:
            self.of.pop(partition, None)

    async def read(self, e: Event, tx: Connection) -> int:
        if e.partition not in self.held:
            self.wrong.append(f"{e.partition} was never taken")
        total = await tx.fetchval("SELECT total FROM totals WHERE key = $1", e.aggregate_id) or 0
        cached = self.of[e.partition]
        if e.aggregate_id in cached:
            self.hits += 1
            if cached[e.aggregate_id] != total:
                self.wrong.append(f"{e.aggregate_id}: {cached[e.aggregate_id]} instead of {total}")
        return cached.setdefault(e.aggregate_id, total)


def totals_by(cache: Totals, fails: set[int]) -> Projection:
    """Return a projection that fails at these positions, once it has written, here; 0: now and then."""

    @projection("totals", hooks=[cache], concurrency=2, retries=1)
    async def totals(e: Event, tx: Connection) -> None:
        total = cache.of[e.partition][e.aggregate_id] = await cache.read(e, tx) + 1
        await tx.execute(
            "INSERT INTO totals VALUES ($1, $2) ON CONFLICT (key) DO UPDATE SET total = $2", e.aggregate_id, total
        )
        if e.global_position in fails or (0 in fails and random.random() < 0.05):
            raise LookupError

    return totals


@contextlib.asynccontextmanager
async def at_work(url: str, cache: Totals, fails: set[int]) -> Any:
    async with Node(Config(database_url=url, batch_events=5)) as node:
        worker = Worker(node, "test", [totals_by(cache, fails)])
        task = asyncio.create_task(worker.run())
        try:
            yield worker
        finally:
            worker.stop()
            await task


async def _append(url: str, keys: Sequence[str]) -> None:
    async with connected(url) as connection, connection.transaction():
        await append(connection, [event(key) for key in keys])


async def _all_handled(connection: Connection, events: int) -> bool:
    total = await connection.fetchval("SELECT coalesce(sum(total), 0) FROM totals")
    return bool(total == events)


async def _moved_about(url: str) -> tuple[Totals, Totals]:
    """Let two workers divide the work: one comes and goes, connections are lost, and handlers fail."""
    caches = Totals(), Totals()
    keys = [f"k{number}" for number in range(KEYS)]
    events = 0
    async with connected(url) as connection:
        await connection.execute(TABLES)
        async with at_work(url, caches[0], {0}):
            for turn in range(3):
                async with at_work(url, caches[1], {0}) as second:

                    async def shared(second: Worker = second) -> bool:
                        return any(second.partitions.values())

                    for _ in range(3):
                        await _append(url, keys * 3)
                        events += 3 * KEYS
                        if turn == 1:
                            await connection.execute(KILL)
                    await wait_until(shared)
                    while caches[1].hits <= KEYS * (turn + 1) / 3:  # for as long as this one serves nothing from it
                        await _append(url, keys * 2)
                        events += 2 * KEYS
                        await asyncio.sleep(0.05)
                await _append(url, keys * 2)
                events += 2 * KEYS
            await dead_letters.retry(connection, "test", await dead_letters.listed(connection, "test"), by="test")

            async def done() -> bool:
                parked = [key for key in await dead_letters.listed(connection, "test") if key.state == "parked"]
                if parked:
                    await dead_letters.retry(connection, "test", parked, by="test")
                return await _all_handled(connection, events)

            await wait_until(done)
    return caches


async def test_nothing_stale_is_served_however_partitions_move(database: str) -> None:
    first, second = await _moved_about(database)
    assert first.wrong == second.wrong == []
    assert first.hits > KEYS
    assert second.hits > KEYS
    assert not first.held | second.held, "all is lost in the end"


async def test_one_that_does_not_forget_serves_what_is_stale(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Hooked, "_tell_lost", lambda *_: None)
    with contextlib.suppress(AssertionError):  # totals that are wrong never become right
        async with asyncio.timeout(10):
            await _stale(database)
            return
    raise AssertionError


async def _stale(url: str) -> None:
    """Give partitions away and take them back, while another worker handles their events."""
    cache, other = Totals(), Totals()
    async with connected(url) as connection:
        await connection.execute(TABLES)
        async with at_work(url, cache, set()) as first:
            await _append(url, ["k1"])
            await wait_until(lambda: _all_handled(connection, 1))
            assert any(first.partitions.values())
        async with at_work(url, other, set()):
            await _append(url, ["k1"])
            await wait_until(lambda: _all_handled(connection, 2))
        async with at_work(url, cache, set()):
            await _append(url, ["k1"])

            async def noticed() -> bool:
                return bool(cache.wrong)

            await wait_until(noticed)


class Told(Hooks):
    def __init__(self) -> None:
        self.of: list[tuple[str, Any]] = []

    def took(self, _subject: Subject, partitions: frozenset[int]) -> None:
        self.of.append(("took", partitions))

    def lost(self, _subject: Subject, partitions: frozenset[int]) -> None:
        self.of.append(("lost", partitions))

    def parked(self, _subject: Subject, position: int, error: BaseException) -> None:
        self.of.append(("parked", (position, type(error.__cause__))))

    def paused(self, _subject: Subject, resting: Resting | None) -> None:
        self.of.append(("paused", resting and resting.state))

    def settled(self, subject: Subject, partitions: frozenset[int]) -> None:
        self.of.append(("settled", (subject.replica_set, len(partitions))))

    async def said(self, word: str) -> bool:
        return word in dict(self.of)


async def test_what_happens_is_told_in_its_order(database: str) -> None:
    told = Told()

    @projection("handled", retries=0)
    async def failing(_event: Event, _tx: Connection) -> None:
        told.of.append(("called", None))
        raise LookupError

    async with prepared(database) as connection, Node(Config(database_url=database)) as node:
        worker = Worker(node, "test", [failing], hooks=[told])
        task = asyncio.create_task(worker.run())
        await wait_until(lambda: told.said("settled"))
        await append(connection, [event("k1")])
        await wait_until(lambda: told.said("parked"))
        partition = await connection.fetchval("SELECT partition FROM reactive_orch.events")
        await set_state(connection, "test", Subscription("handled", OWN_LOG), StateChange("paused", "by hand", "test"))
        await wait_until(lambda: told.said("paused"))
        worker.stop()
        await task
    words = [word for word, _ in told.of]
    assert words.index("took") < words.index("settled") < words.index("called") < words.index("parked")
    assert dict(told.of)["settled"] == ("test", 64)
    assert dict(told.of)["parked"] == (1, LookupError)
    assert dict(told.of)["paused"] == "paused"
    called = words.index("called")
    assert told.of[called + 1 : called + 3] == [("lost", {partition}), ("took", {partition})], "it was rolled back"
    in_the_end = [partitions for word, partitions in told.of[called + 3 :] if word == "lost"]
    assert frozenset().union(*in_the_end) == frozenset(range(64))


async def test_one_that_raises_ends_its_worker(database: str) -> None:
    class Broken(Hooks):
        def took(self, _subject: Subject, _partitions: frozenset[int]) -> None:
            raise ZeroDivisionError

    @projection("handled", hooks=[Broken()])
    async def handled(_event: Event, _tx: Connection) -> None: ...

    with pytest.raises(BaseExceptionGroup) as caught:
        async with asyncio.timeout(30), serving(database, handled, until_idle=True):
            pass
    assert caught.group_contains(ZeroDivisionError)
