"""Handlers of several workers that write the same rows: after a deadlock, batches go one at a time for a while."""

from __future__ import annotations

import asyncio
import logging
import random
from typing import TYPE_CHECKING

import asyncpg
import pytest

from integration_test.harness.checkers import checked, wait_settled
from integration_test.harness.command_line import run
from integration_test.harness.connections import connected, prepared
from integration_test.harness.in_process import event, serving
from integration_test.harness.projections import record
from integration_test.harness.waiting import TimedOut, wait_until
from reactive_orch import Event, Projection, append, projection
from reactive_orch.model.keys import WantedKeys
from reactive_orch.postgres import dead_letters
from reactive_orch.runtime.handling import serial

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from integration_test.harness.connections import Connection
    from reactive_orch import Worker

KEYS = 50
SHARED = "CREATE TABLE public.shared (row integer PRIMARY KEY, events integer NOT NULL)"
COUNT = "INSERT INTO public.shared VALUES ($1, 1) ON CONFLICT (row) DO UPDATE SET events = shared.events + 1"
SERIALIZE = "SELECT left_s, begins FROM reactive_orch.serialize_batches('test', 'handled', 'events')"
HOLD = "SELECT reactive_orch.await_others('test', 'handled', 'events')"


async def fill(connection: Connection, events: int) -> None:
    await append(connection, [event(f"k{n % KEYS}") for n in range(events)])


def counting(dice: random.Random) -> Projection:
    """Return a projection whose every event writes two shared rows, any two, in any order."""

    @projection("handled")
    async def handled(e: Event, tx: Connection) -> None:
        await record(tx, "handled", e)
        for row in dice.sample(range(5), 2):
            await tx.execute(COUNT, row)

    return handled


def knows(*workers: Worker, on: bool = True) -> Callable[[], Awaitable[bool]]:
    async def all_know() -> bool:
        return all(worker.snapshot is not None and bool(worker.snapshot.serial) is on for worker in workers)

    return all_know


async def one_at_a_time(connection: Connection, *workers: Worker) -> None:
    """Let their batches go one at a time, for longer than any machine is slow."""
    await connection.execute(
        "UPDATE reactive_orch.projections SET serial_until = clock_timestamp() + interval '1 hour', serial_s = 3600"
    )
    await connection.execute("SELECT reactive_orch.notify('reactive_orch_generations', 'test')")
    await wait_until(knows(*workers))


@pytest.mark.each_server
async def test_after_a_deadlock_batches_go_one_at_a_time_and_each_event_is_counted_once(
    database: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "reactive_orch")
    dice, filled = random.Random(1), 0
    async with prepared(database) as connection:
        await connection.execute(SHARED)
        async with (
            serving(database, counting(dice)),
            serving(database, counting(dice)),
            serving(database, counting(dice)),
        ):
            await wait_settled(connection, members=3)
            while not await connection.fetchval("SELECT serial_s > 0 FROM reactive_orch.projections"):
                await fill(connection, 600)
                filled += 600
                await checked(connection)
        assert await connection.fetchval("SELECT sum(events) FROM public.shared") == 2 * filled
        last_s = await connection.fetchval("SELECT serial_s FROM reactive_orch.projections")
        said = [r for r in caplog.records if getattr(r, "event", "") == "serialized"]
        assert 10 * 2 ** (len(said) - 1) == last_s, "one line a spell"
        assert "projection handled: handlers have deadlocked" in said[0].getMessage()
        assert not [r for r in caplog.records if getattr(r, "event", "") in {"retrying", "parked"}], "no attempt"
        assert await connection.fetchval("SELECT count(*) FROM reactive_orch.failing_keys") == 0
        await connection.execute("UPDATE reactive_orch.projections SET serial_until = clock_timestamp() + '1 hour'")
        shown = (await run("status", "--replica-set", "test", "--database-url", database)).done()
        assert "handlers deadlock: batches go one at a time until" in shown


async def test_meanwhile_no_two_batches_run_side_by_side_on_any_worker(database: str) -> None:
    running, most = 0, 0

    @projection("handled", concurrency=3)
    async def handled(e: Event, tx: Connection) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.002)
        await record(tx, "handled", e)
        running -= 1

    async with prepared(database) as connection:
        async with serving(database, handled, batch_events=5) as one, serving(database, handled, batch_events=5) as two:
            await wait_until(lambda: _settled(one, two))
            await one_at_a_time(connection, one, two)
            await wait_until(lambda: _shows(one, on=True))
            await fill(connection, 200)
            await checked(connection)
            assert most == 1, "one at a time"
            await connection.execute("UPDATE reactive_orch.projections SET serial_until = clock_timestamp()")
            await connection.execute("SELECT reactive_orch.notify('reactive_orch_generations', 'test')")
            await wait_until(knows(one, two, on=False))
            await wait_until(lambda: _shows(one, on=False))
            await fill(connection, 200)
            await checked(connection)
        assert most > 1, "side by side again"


async def test_turns_among_the_lanes_of_one_worker_alone_are_caught(
    database: str, plant: Callable[[str], None]
) -> None:
    plant("turns_among_the_lanes_of_one_worker_alone")
    with pytest.RaisesGroup(AssertionError, flatten_subgroups=True) as caught:
        await test_meanwhile_no_two_batches_run_side_by_side_on_any_worker(database)
    assert caught.value.subgroup(TimedOut) is None, caught.value


async def _shows(worker: Worker, *, on: bool) -> bool:
    return [each.one_at_a_time for each in worker.status().projections] == [on]


async def _settled(*workers: Worker) -> bool:
    return all(worker.snapshot is not None and len(worker.snapshot.members) == len(workers) for worker in workers)


async def test_whoever_waits_for_his_turn_holds_no_checkpoint_and_leaves_at_once(database: str) -> None:
    async with prepared(database) as connection, connected(database) as frozen:
        async with serving(database, counting(random.Random(2))) as worker:
            await connection.execute(SHARED)
            await wait_until(lambda: _settled(worker))
            async with frozen.transaction():
                await frozen.execute(HOLD)
                await one_at_a_time(connection, worker)
                await fill(connection, 20)
                await wait_until(lambda: _waits(connection))
                await connection.execute("SELECT FROM reactive_orch.checkpoints FOR UPDATE NOWAIT")
                assert await connection.fetchval("SELECT count(*) FROM public.handled") == 0
                async with asyncio.timeout(10):
                    worker.stop()
                    await wait_until(lambda: _gone(connection))
        async with serving(database, counting(random.Random(2))):
            await checked(connection)


async def test_a_turn_that_is_taken_after_the_swap_is_caught(database: str, plant: Callable[[str], None]) -> None:
    plant("turn_taken_after_the_swap")
    with pytest.RaisesGroup(asyncpg.LockNotAvailableError, flatten_subgroups=True):
        await test_whoever_waits_for_his_turn_holds_no_checkpoint_and_leaves_at_once(database)


async def _waits(connection: Connection) -> bool:
    return bool(
        await connection.fetchval("SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted)")
    )


async def _gone(connection: Connection) -> bool:
    return not await connection.fetchval("SELECT count(*) FROM reactive_orch.members")


async def test_a_frozen_one_stops_nobody_for_ever(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serial, "PATIENCE_S", 1.0)
    async with prepared(database) as connection, connected(database) as frozen:
        await connection.execute(SHARED)
        async with serving(database, counting(random.Random(3))) as worker, frozen.transaction():
            await wait_until(lambda: _settled(worker))
            await frozen.execute(HOLD)
            await one_at_a_time(connection, worker)
            await fill(connection, 20)
            await checked(connection)


async def test_a_failing_key_is_tried_again_in_its_turn(database: str) -> None:
    well = False

    @projection("handled")
    async def handled(e: Event, tx: Connection) -> None:
        await record(tx, "handled", e)
        if not well:
            raise LookupError

    async with (
        prepared(database) as connection,
        connected(database) as other,
        serving(database, handled, retries=0) as worker,
    ):
        await append(connection, [event("a")])
        await wait_until(lambda: _fails(connection))
        well = True
        async with other.transaction():
            await other.execute(HOLD)
            await one_at_a_time(connection, worker)
            (key,) = await dead_letters.listed(connection, WantedKeys("test"))
            await dead_letters.request(connection, "test", [key], "retry", "test")
            await wait_until(lambda: _waits(connection))
            assert await _fails(connection)
        await checked(connection)


async def _fails(connection: Connection) -> bool:
    return bool(await connection.fetchval("SELECT count(*) FROM reactive_orch.failing_keys"))


@pytest.mark.each_server
async def test_spells_grow_while_deadlocks_come_back(database: str) -> None:
    async with prepared(database) as connection:
        async with serving(database, counting(random.Random(4))) as worker:
            await wait_until(lambda: _settled(worker))

        async def spell(ended_ago: str) -> tuple[float, bool]:
            await connection.execute(
                "UPDATE reactive_orch.projections SET serial_until = clock_timestamp() - $1::text::interval", ended_ago
            )
            row = await connection.fetchrow(SERIALIZE)
            assert row is not None
            return round(row["left_s"]), row["begins"]

        assert await spell("1 year") == (10, True)
        row = await connection.fetchrow(SERIALIZE)
        assert row is not None
        assert (9 < row["left_s"] <= 10, row["begins"]) == (True, False), "it has begun before"
        assert [await spell("50 seconds") for _ in range(8)] == [
            (s, True) for s in (20, 40, 80, 160, 320, 600, 600, 600)
        ]
        assert await spell("-1 hour") == (600, True), "a clock that was set back makes no spell of hours"
        assert await spell("2 minutes") == (10, True)
        unknown = await connection.fetchrow(
            "SELECT * FROM reactive_orch.serialize_batches('test', 'unknown', 'events')"
        )
        assert unknown is not None
        assert tuple(unknown) == (None, None)
