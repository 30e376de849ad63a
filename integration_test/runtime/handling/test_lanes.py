"""Lanes: slow handlers overlap, and a backlog does not delay fresh events."""

from __future__ import annotations

import asyncio
import contextlib
import random
import statistics
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from integration_test.harness.connections import connected
from integration_test.harness.load import append_events, stand
from integration_test.harness.waiting import wait_until
from reactive_orch import Config, Event, NewEvent, Node, Projection, Worker, append, projection
from reactive_orch.config import CONNECTIONS_MIN
from reactive_orch.model import OWN_LOG, Subscription
from reactive_orch.runtime.backoff import Backoff, Pauses
from reactive_orch.runtime.handling import failures, lane
from reactive_orch.runtime.reading.follower import LogFollower
from reactive_orch.runtime.reading.waiters import Waiters

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from contextlib import AbstractContextManager

    from integration_test.harness.connections import Connection
    from reactive_orch.runtime.handling.ear import Ear
    from reactive_orch.runtime.wakeup import Wakeup

LANES = 4
BACKLOG = 80_000
FRESH, FRESH_EVERY = 9, 2500


@contextlib.asynccontextmanager
async def serving(url: str, one: Projection, **settings: Any) -> AsyncIterator[Worker]:
    async with Node(Config(database_url=url, **settings)) as node, anyio.create_task_group() as tasks:
        worker = Worker(node, "test", [one])
        tasks.start_soon(worker.run)
        yield worker
        worker.stop()


async def test_slow_handlers_of_several_lanes_overlap(database: str) -> None:
    at_work = most = handled = 0

    @projection("slow", concurrency=LANES)
    async def slow(event: Event, tx: Connection) -> None:  # noqa: ARG001
        nonlocal at_work, most, handled
        at_work += 1
        most = max(most, at_work)
        await asyncio.sleep(0.05)
        at_work -= 1
        handled += 1

    async with connected(database) as connection:
        await append_events(connection, 80)
        async with serving(database, slow, batch_events=5):

            async def all_of_them() -> bool:
                return handled >= 80

            await wait_until(all_of_them, what="all are handled")
    assert most == LANES
    assert handled == 80


async def test_a_lane_that_waits_after_a_loss_holds_up_no_other(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection is lost under one lane's batch, and it pauses for longer than this test lasts: the other goes on."""

    def long(*, contended_most_s: float) -> Pauses:
        pauses = Pauses(contended_most_s=contended_most_s)
        pauses._away = Backoff(600, 600)  # noqa: SLF001 - after a loss
        return pauses

    monkeypatch.setattr(lane, "Pauses", long)
    lost = asyncio.Event()
    handled = asyncio.Event()

    @projection("severed", concurrency=2)
    async def severed(event: Event, tx: Connection) -> None:  # noqa: ARG001
        if lost.is_set():
            handled.set()
        else:
            lost.set()
            await tx.execute("SELECT pg_terminate_backend(pg_backend_pid())")

    async with connected(database) as connection, Node(Config(database_url=database)) as node:
        worker, begun = Worker(node, "test", [severed]), node.database.incarnation

        async def noted() -> bool:
            return node.database.incarnation > begun

        async with asyncio.timeout(20), anyio.create_task_group() as tasks:
            tasks.start_soon(worker.run)
            await append_events(connection, 1)
            await lost.wait()
            await wait_until(noted, what="the loss is noted")
            await append_events(connection, 50)
            await handled.wait()
            worker.stop()


async def test_a_lane_that_waits_for_a_failing_event_holds_up_no_other_after_a_loss(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It pauses for longer than this test lasts, and forgets all the same when a connection is lost."""
    monkeypatch.setattr(failures, "Backoff", lambda *_: Backoff(600, 600))
    failed = asyncio.Event()
    handled: list[str] = []

    @projection("failing", concurrency=2)
    async def failing(event: Event, tx: Connection) -> None:  # noqa: ARG001
        if event.aggregate_id == "bad":
            failed.set()
            raise KeyError
        handled.append(event.aggregate_id)

    def of(*keys: str) -> list[NewEvent]:
        return [NewEvent(aggregate_type="K", aggregate_id=key, event_type="T") for key in keys]

    async with connected(database) as connection, Node(Config(database_url=database)) as node:
        worker, begun = Worker(node, "test", [failing]), node.database.incarnation

        async def noted() -> bool:
            return node.database.incarnation > begun

        async def handled_by_the_other() -> bool:
            return bool(handled)

        async with asyncio.timeout(20), anyio.create_task_group() as tasks:
            tasks.start_soon(worker.run)
            await append(connection, of("bad"))
            await failed.wait()
            await connection.execute(_END_THE_TAIL)
            await wait_until(noted, what="the loss is noted")
            await append(connection, of(*(f"good-{n}" for n in range(50))))
            await wait_until(handled_by_the_other, what="the other lane goes on")
            tasks.cancel_scope.cancel()


_END_THE_TAIL = """
SELECT pg_terminate_backend(a.pid) FROM pg_stat_activity a
WHERE a.datname = current_database() AND a.application_name LIKE 'reactive_orch:tail:%'
"""


async def test_batches_follow_the_cost_of_a_swap(database: str) -> None:
    """While swaps are slow a lane leaves at least as long between two of them as one takes."""

    @projection("slow_swap")
    async def nothing(event: Event, tx: Connection) -> None:
        pass

    async with connected(database) as connection:
        await connection.execute(SLOW_SWAPS)
        async with serving(database, nothing, batch_events=10_000):  # after a full batch there is no pause
            while await connection.fetchval("SELECT count(*) FROM public.swaps") < 10:
                await append_events(connection, 1)
        swaps = await connection.fetch(
            "SELECT lower(taken) AS began, upper(taken) AS ended FROM public.swaps ORDER BY 1"
        )
    pauses = [(after["began"] - before["ended"]).total_seconds() for before, after in pairwise(swaps)]
    # Checkpoints saved without events come in between.
    assert statistics.median(pauses) >= SWAP_S


SWAP_S = 0.03  # as in the trigger
SLOW_SWAPS = """
CREATE TABLE public.swaps (taken tstzrange);
CREATE FUNCTION public.slow() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE began timestamptz := clock_timestamp();
BEGIN
    PERFORM pg_sleep(0.03);
    INSERT INTO public.swaps VALUES (tstzrange(began, clock_timestamp()));
    RETURN NULL;
END $$;
CREATE TRIGGER slow AFTER UPDATE ON reactive_orch.checkpoints FOR EACH STATEMENT EXECUTE FUNCTION public.slow();
"""


async def test_lanes_take_turns_with_few_connections(database: str) -> None:
    """A lane with a backlog goes on with its connection only while no other lane waits for one."""
    events, names = 2500, [f"turn_{n}" for n in range(5)]
    handled = dict.fromkeys(names, 0)
    least_when_the_first_ended: list[int] = []

    def counting(name: str) -> Projection:
        @projection(name, batch=True)
        async def count(batch: Sequence[Event], tx: Connection) -> None:  # noqa: ARG001
            handled[name] += len(batch)
            if handled[name] == events:
                least_when_the_first_ended.append(min(handled.values()))

        return count

    async with connected(database) as connection:
        await append_events(connection, events)
    async with Node(Config(database_url=database, batch_events=20, connections_max=CONNECTIONS_MIN + 1)) as node:
        await Worker(node, "test", [counting(name) for name in names], until_idle=True).run()
    assert set(handled.values()) == {events}
    assert least_when_the_first_ended[0] > events // 2


@pytest.mark.parametrize("seed", [17])
async def test_fresh_events_do_not_wait_for_a_backlog(database: str, seed: int) -> None:
    """Some partitions have been handled, the others come from the beginning of a long log.

    Which ones is drawn: the lanes may not take anybody's number for a sign.
    """
    old, more_done = 0, asyncio.Semaphore(0)
    old_before: dict[str, int] = {}
    waited: list[int] = []
    """How many old events were handled between each fresh event's append and its turn."""

    @projection("mixed")
    async def mixed(event: Event, tx: Connection) -> None:  # noqa: ARG001
        nonlocal old
        if event.event_type == "Fresh":
            waited.append(old - old_before[event.aggregate_id])
        else:
            old += 1
            if old % FRESH_EVERY == 0:
                more_done.release()

    async with connected(database) as connection:
        await connection.execute(OLD_EVENTS, BACKLOG)
        ahead = random.Random(seed).sample(range(64), 32)
        await stand(connection, "mixed", partitions=ahead, position=BACKLOG)
        keys = await connection.fetch(KEYS, ahead, FRESH)
        backlog = await connection.fetchval(COUNT_BUT, ahead)
        async with serving(database, mixed):

            async def all_fresh() -> bool:
                return len(waited) == len(keys)

            for (key,) in keys:
                await asyncio.wait_for(more_done.acquire(), 60)
                old_before[key] = old
                await connection.execute(FRESH_EVENT, key)
            await wait_until(all_fresh, what="the fresh events are handled")
            assert old < backlog, "the backlog was too short to prove anything"
            assert statistics.median(waited) < FRESH_EVERY


OLD_EVENTS = """
INSERT INTO reactive_orch.events (aggregate_type, aggregate_id, aggregate_version, event_type)
SELECT 'Key', 'key-' || n % 500, n / 500 + 1, 'Old' FROM generate_series(0, $1::integer - 1) AS n
"""
KEYS = """
SELECT aggregate_id FROM reactive_orch.events WHERE partition = ANY ($1::integer[]) AND global_position <= 500
GROUP BY aggregate_id LIMIT $2
"""
COUNT_BUT = "SELECT count(*) FROM reactive_orch.events WHERE partition <> ALL ($1::integer[])"
FRESH_EVENT = """
INSERT INTO reactive_orch.events (aggregate_type, aggregate_id, aggregate_version, event_type)
VALUES ('Key', $1, 1000000, 'Fresh')
"""


async def test_lanes_without_partitions_ask_for_no_looks(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The catch-up lane, mostly, and all lanes of a worker that stands by."""
    asked: list[object] = []
    told, call = Waiters.told, LogFollower.call

    def counted(self: Waiters, reader: Ear) -> AbstractContextManager[None]:
        asked.append(reader.wakeup)
        return told(self, reader)

    def called(self: LogFollower, wakeup: Wakeup) -> None:
        if self.settled is not None:
            asked.append(wakeup)
        call(self, wakeup)

    @projection("quick")
    async def quick(event: Event, tx: Connection) -> None:
        pass

    monkeypatch.setattr(Waiters, "told", counted)
    monkeypatch.setattr(LogFollower, "call", called)
    async with connected(database) as connection, serving(database, quick) as worker:
        for n in range(1, 11):
            await append_events(connection, 1)

            async def handled(n: int = n) -> bool:
                return worker.events_handled.get(Subscription("quick", OWN_LOG)) == n

            await wait_until(handled, what="the event is handled")
    assert len(asked) >= 10
    assert len(set(map(id, asked))) == 1, "one lane has all partitions"
