"""Projections of one worker that stand at the same position read each window once, whatever becomes of the others."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, Any

import anyio

from integration_test.harness.connections import connected
from integration_test.harness.load import append_events
from integration_test.harness.waiting import wait_until
from reactive_orch import Config, Event, Node, Projection, Superseded, Unavailable, Worker, projection
from reactive_orch.model import OWN_LOG, Filter, Log, LogName, Window
from reactive_orch.model.reports import Subject
from reactive_orch.postgres import windows
from reactive_orch.postgres.database import Database
from reactive_orch.runtime.reading.follower import LogFollower
from reactive_orch.runtime.reading.prefetch import Prefetcher
from reactive_orch.runtime.reading.window_cache import WindowCache

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    import pytest

    from reactive_orch.postgres.connection import AnyConnection

EVENTS, BATCH = 2000, 50
WINDOWS = EVENTS // BATCH
NAMES = ("a", "b", "c")


class Reads:
    """The window reads that got to the database, by filter."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.of: Counter[Filter] = Counter()
        self.before: Callable[[AnyConnection], Awaitable[None]] | None = None
        """What happens on the connection before the read."""
        self._read_window = windows.read_window
        monkeypatch.setattr(windows, "read_window", self._count)

    async def _count(self, connection: AnyConnection, log: LogName, window: Window, wanted: Filter) -> windows.Found:
        self.of[wanted] += 1
        if self.before:
            await self.before(connection)
        return await self._read_window(connection, log, window, wanted)


class Followers:
    """Projections that record what they are given; `pace` is awaited with each batch."""

    def __init__(self, pace: Callable[[str, Sequence[Event]], Awaitable[Any]]) -> None:
        self.handled: dict[str, list[int]] = {}
        self.sizes: dict[str, list[int]] = {}
        self._pace = pace

    def make(self, name: str, aggregate_types: Sequence[str] | None = None) -> Projection:
        handled, sizes = self.handled.setdefault(name, []), self.sizes.setdefault(name, [])

        @projection(name, batch=True, aggregate_types=aggregate_types)
        async def follow(events: Sequence[Event], tx: object) -> None:  # noqa: ARG001
            await self._pace(name, events)
            handled.extend(event.global_position for event in events)
            sizes.append(len(events))

        return follow


async def catch_up(database: str, projections: Sequence[Projection]) -> None:
    """Handle everything that a log of `EVENTS` events holds, and check nothing but that it ends."""
    async with connected(database) as connection:
        await append_events(connection, EVENTS)
    async with Node(Config(database_url=database, batch_events=BATCH)) as node:
        await Worker(node, "test", projections, until_idle=True).run()


def everything() -> list[int]:
    return list(range(1, EVENTS + 1))


async def test_who_stands_together_reads_together(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    reads, side_by_side = Reads(monkeypatch), asyncio.Barrier(len(NAMES))

    async def pace(name: str, _events: Sequence[Event]) -> None:
        if name in NAMES:
            await side_by_side.wait()

    followers = Followers(pace)
    other = followers.make("other", ["SomethingElse"])
    await catch_up(database, [*map(followers.make, NAMES), other])
    assert followers.handled == {**dict.fromkeys(NAMES, everything()), "other": []}
    # Each ends with a window or two without events. Alone, three projections take three times as many.
    assert WINDOWS <= reads.of[Filter()] <= WINDOWS + 3 * len(NAMES)
    assert reads.of[other.filter], "what passes one filter says nothing about another one"


async def test_a_new_event_is_read_once_for_all(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    reads, rounds = Reads(monkeypatch), 20

    async def pace(_name: str, _events: Sequence[Event]) -> None:
        pass

    followers = Followers(pace)
    async with Node(Config(database_url=database)) as node, anyio.create_task_group() as tasks:
        worker = Worker(node, "test", list(map(followers.make, NAMES)))
        tasks.start_soon(worker.run)
        async with connected(database) as connection:
            for n in range(1, rounds + 1):
                await append_events(connection, 1)

                async def all_handled(n: int = n) -> bool:
                    return all(count == n for count in worker.events_handled.values()) and bool(worker.events_handled)

                await wait_until(all_handled, what="every projection has handled it")
        worker.stop()
    assert followers.handled == {key: list(range(1, rounds + 1)) for key in NAMES}
    assert reads.of[Filter()] < 2 * rounds, "each for itself, they read three times as often"


async def test_a_window_of_a_lost_database_is_not_read_any_more(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the next incarnation, its end may not be settled."""
    reads, begun, cut = Reads(monkeypatch), asyncio.Event(), asyncio.Event()

    async def hang(_connection: AnyConnection) -> None:
        begun.set()
        await cut.wait()
        raise Unavailable

    reads.before = hang
    pool, cache = Database(database, label="lost", connections_max=4, handler_timeout_s=60), WindowCache(lanes=2)
    await pool.open()
    window = Window(tuple(range(64)), low=0, high=EVENTS, limit=BATCH, incarnation=pool.incarnation)
    follower, subject = (
        LogFollower(Log(OWN_LOG, 64), pool, lambda: True, lambda _: None),
        Subject("test", "one", OWN_LOG),
    )
    prefetchers = [Prefetcher(follower, Filter(), cache, subject, lambda _: None) for _ in range(2)]
    one, other = (asyncio.create_task(prefetcher.read(window)) for prefetcher in prefetchers)
    await begun.wait()
    pool.lost()
    cut.set()
    outcomes = await asyncio.gather(one, other, return_exceptions=True)
    await pool.close()
    assert [type(outcome) for outcome in outcomes] == [Unavailable, Superseded]
    assert reads.of.total() == 1
    assert cache.find(window) is None


async def test_nobody_waits_for_a_slow_one(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    reads, quick_are_done = Reads(monkeypatch), asyncio.Event()

    async def pace(name: str, events: Sequence[Event]) -> None:
        if name == "a":
            await asyncio.wait_for(quick_are_done.wait(), 60)
        elif events[-1].global_position == EVENTS:
            quick_are_done.set()

    followers = Followers(pace)
    await catch_up(database, list(map(followers.make, NAMES[:2])))
    assert followers.handled == dict.fromkeys(NAMES[:2], everything())
    assert reads.of[Filter()] >= 2 * WINDOWS - 10, "the slow one, left behind, has read for itself"


async def test_a_read_that_fails_for_all_fails_for_none(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every third connection dies while others wait for what it reads."""
    reads = Reads(monkeypatch)

    async def before(connection: AnyConnection) -> None:
        if sum(reads.of.values()) % 3 == 0 and reads.of.total() < WINDOWS:
            async with connected(database) as other:
                await other.execute("SELECT pg_terminate_backend($1)", connection.get_server_pid())

    async def pace(_name: str, _events: Sequence[Event]) -> None:
        pass

    reads.before = before
    followers = Followers(pace)
    await catch_up(database, list(map(followers.make, NAMES)))
    assert {name: sorted(set(handled)) for name, handled in followers.handled.items()} == dict.fromkeys(
        NAMES, everything()
    )
    async with connected(database) as connection:
        assert await connection.fetchval("SELECT max(position) FROM reactive_orch.checkpoints") == EVENTS


async def test_what_fails_for_one_is_narrowed_down_for_it_alone(database: str) -> None:
    side_by_side, failures = asyncio.Barrier(2), 0

    async def pace(name: str, events: Sequence[Event]) -> None:
        nonlocal failures
        if name == "a" and failures < 3 and any(event.global_position == EVENTS // 2 for event in events):
            failures += 1
            raise ValueError(name)
        if name != "a":
            await side_by_side.wait()

    followers = Followers(pace)
    await catch_up(database, list(map(followers.make, NAMES)))
    assert sorted(followers.handled["a"]) == everything(), "that event's key later"
    assert {name: followers.handled[name] for name in NAMES[1:]} == dict.fromkeys(NAMES[1:], everything())
    assert failures == 3
    assert min(followers.sizes["a"]) < BATCH
    assert {*followers.sizes["b"], *followers.sizes["c"]} == {BATCH}
