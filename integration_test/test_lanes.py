"""Lanes: slow handlers overlap, and a backlog does not delay fresh events."""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import time
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import anyio

from integration_test.harness import append_events, connected, stand, wait_until
from reactive_orch import Config, Event, Node, Projection, Worker, projection

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from integration_test.harness import Connection

LANES = 4
BACKLOG = 20_000
FRESH = 40
LATENCY_S = 2.0
"""Of a fresh event, on a slow machine: the backlog takes several times as long."""


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


async def test_batches_follow_the_cost_of_a_swap(database: str) -> None:
    """While swaps are slow a lane leaves at least as long between two of them as one takes."""

    @projection("slow_swap")
    async def nothing(event: Event, tx: Connection) -> None:
        pass

    async with connected(database) as connection:
        await connection.execute(SLOW_SWAPS)
        async with serving(database, nothing):
            while await connection.fetchval("SELECT count(*) FROM public.swaps") < 10:
                await append_events(connection, 1)
        swaps = await connection.fetch(
            "SELECT lower(taken) AS began, upper(taken) AS ended FROM public.swaps ORDER BY 1"
        )
    pauses = [(after["began"] - before["ended"]).total_seconds() for before, after in pairwise(swaps)]
    assert statistics.median(pauses) >= SWAP_S  # checkpoints saved without events come in between


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
    events, names = 5000, [f"turn_{n}" for n in range(5)]
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
    async with Node(Config(database_url=database, batch_events=20, connections_max=2)) as node:
        await Worker(node, "test", [counting(name) for name in names], until_idle=True).run()
    assert set(handled.values()) == {events}
    assert least_when_the_first_ended[0] > events // 2


async def test_fresh_events_do_not_wait_for_a_backlog(database: str) -> None:
    """Half of the partitions have been handled, the others come from the beginning of a long log."""
    delays: list[float] = []
    old = 0

    @projection("mixed")
    async def mixed(event: Event, tx: Connection) -> None:  # noqa: ARG001
        nonlocal old
        if event.event_type == "Fresh":
            delays.append(time.time() - event.created_at.timestamp())
        else:
            old += 1
            await asyncio.sleep(0.0005)

    async with connected(database) as connection:
        await append_events(connection, BACKLOG, keys=500)
        await stand(connection, "mixed", partitions=32, position=BACKLOG)
        fresh_keys = await connection.fetch(
            "SELECT aggregate_id FROM reactive_orch.events WHERE partition < 32 GROUP BY aggregate_id LIMIT $1", FRESH
        )
        async with serving(database, mixed) as worker:

            async def begun() -> bool:
                return old > 0 and len(worker.partitions.get("mixed", ())) == 64

            await wait_until(begun, what="the backlog is being handled")
            for (key,) in fresh_keys:
                await connection.execute(
                    "INSERT INTO reactive_orch.events (aggregate_type, aggregate_id, aggregate_version, event_type)"
                    " VALUES ('Key', $1, 1000000, 'Fresh')",
                    key,
                )
                await asyncio.sleep(0.01)

            async def all_fresh() -> bool:
                return len(delays) == len(fresh_keys)

            await wait_until(all_fresh, what="the fresh events are handled")
            backlog_left = old < BACKLOG // 2
            assert backlog_left, "the backlog was too short to prove anything"
            assert sorted(delays)[len(delays) // 2] < LATENCY_S
