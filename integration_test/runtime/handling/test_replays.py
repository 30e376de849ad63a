"""Events that come again after a rewind: known as replayed, in every way in which a handler meets them."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest

from integration_test.chaos import planted
from integration_test.harness.command_line import run
from integration_test.harness.connections import connected
from integration_test.harness.findings import found
from integration_test.harness.in_process import event, run_until_idle, serving
from integration_test.harness.waiting import wait_until
from reactive_orch import Event, Projection, append
from reactive_orch import projection as make_projection
from reactive_orch.model import OWN_LOG, Subscription
from reactive_orch.postgres import rewinds

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from integration_test.harness.connections import Connection

HANDLED = Subscription("handled", OWN_LOG)


class Seen:
    """What a projection has handled, written down in its transaction: position → whether it came as a replayed one."""

    def __init__(self, name: str = "handled", *, batch: bool = False, replay: bool = True) -> None:
        self.name = name
        self.fails: Callable[[Event], bool] = lambda _: False

        async def one(e: Event, tx: Connection) -> None:
            if self.fails(e):
                msg = "not now"
                raise LookupError(msg)
            await tx.execute("INSERT INTO seen VALUES ($1, $2, $3)", name, e.global_position, e.replayed)

        async def many(events: Sequence[Event], tx: Connection) -> None:
            for e in events:
                await one(e, tx)

        self.projection: Projection = make_projection(name, batch=batch, replay=replay)(many if batch else one)

    async def taken(self, connection: Connection) -> dict[int, bool]:
        """Return what was handled since the last call, once each."""
        rows = await connection.fetch("DELETE FROM seen WHERE name = $1 RETURNING position, replayed", self.name)
        seen = dict(sorted(tuple(row) for row in rows))
        assert len(seen) == len(rows), f"twice: {rows}"
        return seen


@contextlib.asynccontextmanager
async def prepared(url: str) -> AsyncIterator[Connection]:
    async with connected(url) as connection:
        await connection.execute("CREATE TABLE seen (name text, position bigint, replayed boolean)")
        yield connection


async def write(connection: Connection, count: int, keys: int = 7) -> None:
    for n in range(count):
        await append(connection, [event(f"k{n % keys}")])


async def rewind(connection: Connection, to: int | None, *, skip_unhandled: bool = False) -> None:
    await rewinds.rewind(connection, "test", HANDLED, to, skip_unhandled=skip_unhandled)


@pytest.mark.parametrize("batch", [False, True])
@pytest.mark.each_server
async def test_events_are_replayed_up_to_where_the_checkpoint_stood(database: str, *, batch: bool) -> None:
    seen, other = Seen(batch=batch), Seen("other")
    async with prepared(database) as connection:
        await write(connection, 20)
        await run_until_idle(database, seen.projection, other.projection)
        assert await seen.taken(connection) == dict.fromkeys(range(1, 21), False)
        await rewind(connection, 5)
        await write(connection, 10)
        await connection.execute("SELECT reactive_orch.rewind('test', 'other', NULL)")
        await run_until_idle(database, seen.projection, other.projection)
        assert await seen.taken(connection) == {n: n <= 20 for n in range(6, 31)}
        assert not any((await other.taken(connection)).values()), "who shares its windows has not been rewound"
        await rewind(connection, 25)
        await rewind(connection, 0)
        await run_until_idle(database, seen.projection)
        assert await seen.taken(connection) == dict.fromkeys(range(1, 31), True), (
            "it had stood behind the second target"
        )


@pytest.mark.parametrize("batch", [False, True])
async def test_a_projection_may_leave_replayed_events_out(database: str, *, batch: bool) -> None:
    seen = Seen(batch=batch, replay=False)
    async with prepared(database) as connection:
        async with serving(database, seen.projection):
            await write(connection, 20)
            await wait_until(lambda: _stand(connection, 20))
            await seen.taken(connection)
            await rewind(connection, 0)
            await write(connection, 5)
            await wait_until(lambda: _stand(connection, 25))
        assert await seen.taken(connection) == dict.fromkeys(range(21, 26), False)
        status = (await run("status", DATABASE_URL=database)).done()
        assert "replayed events are left out" in status


async def _stand(connection: Connection, position: int) -> bool:
    """Whether all events up to there have been passed."""
    return not await connection.fetchval(
        "SELECT count(*) FROM reactive_orch.events e JOIN reactive_orch.checkpoints c USING (partition) "
        "WHERE e.global_position <= $1 AND c.position < e.global_position",
        position,
    )


@pytest.mark.parametrize("replay", [True, False])
async def test_what_waited_when_it_was_rewound_is_new_when_it_comes_again(database: str, *, replay: bool) -> None:
    """Events 3 and 8 of key k2 fail and wait, and so do the later ones of it."""
    seen = Seen(replay=replay)
    seen.fails = lambda e: e.global_position == 3
    async with prepared(database) as connection:
        await write(connection, 20, keys=5)
        await run_until_idle(database, seen.projection, retries=0)
        waiting = [3, 8, 13, 18]
        assert list(await seen.taken(connection)) == [n for n in range(1, 21) if n not in waiting]
        seen.fails = lambda _: False
        await rewind(connection, 5)
        await connection.execute("UPDATE reactive_orch.failing_keys SET request = 'retry', due_at = now()")
        await run_until_idle(database, seen.projection, retries=0, batch_events=2)
        again = range(6, 21) if replay else waiting[1:]
        assert await seen.taken(connection) == {3: False, **{n: n not in waiting for n in again}}
        await rewind(connection, 0)
        await run_until_idle(database, seen.projection)
        assert await seen.taken(connection) == (dict.fromkeys(range(1, 21), True) if replay else {}), (
            "by now it was handled"
        )


async def test_a_rewind_before_what_waited_has_come_again_does_not_forget_it(database: str) -> None:
    seen = Seen(replay=False)
    seen.fails = lambda e: e.global_position == 15
    async with prepared(database) as connection:
        await write(connection, 20, keys=20)
        await run_until_idle(database, seen.projection, retries=0)
        await seen.taken(connection)
        await rewind(connection, 2)
        await rewind(connection, 1)
        await rewind(connection, None)
        seen.fails = lambda _: False
        await run_until_idle(database, seen.projection)
        assert await seen.taken(connection) == {15: False}


async def test_what_fails_in_a_replay_is_still_replayed_when_it_is_retried(database: str) -> None:
    seen = Seen()
    async with prepared(database) as connection:
        await write(connection, 20, keys=5)
        await run_until_idle(database, seen.projection)
        await seen.taken(connection)
        await rewind(connection, 0)
        await write(connection, 5, keys=5)
        seen.fails = lambda e: e.global_position == 8
        await run_until_idle(database, seen.projection, retries=0)
        assert not (await seen.taken(connection)).keys() & {8, 13, 18, 23}
        seen.fails = lambda _: False
        await rewind(connection, None)
        await connection.execute("UPDATE reactive_orch.failing_keys SET request = 'retry', due_at = now()")
        await run_until_idle(database, seen.projection, retries=0)
        assert await seen.taken(connection) == {8: True, 13: True, 18: True, 23: False}


async def test_replayed_events_of_a_failing_key_are_left_out_not_queued(database: str) -> None:
    seen = Seen(replay=False)
    seen.fails = lambda e: e.global_position == 3
    async with prepared(database) as connection:
        await write(connection, 2, keys=1)
        await run_until_idle(database, seen.projection)
        await write(connection, 1, keys=1)
        await rewind(connection, 0)
        await run_until_idle(database, seen.projection, retries=0)
        await write(connection, 2, keys=1)
        await run_until_idle(database, seen.projection, retries=0)
        letters = await connection.fetch("SELECT position, replayed FROM reactive_orch.dead_letters ORDER BY 1")
        assert [tuple(row) for row in letters] == [(3, False), (4, False), (5, False)]
        assert await seen.taken(connection) == {1: False, 2: False}


async def test_what_people_left_out_counts_as_dealt_with(database: str) -> None:
    seen = Seen()
    seen.fails = lambda e: e.global_position == 2
    async with prepared(database) as connection:
        await write(connection, 10, keys=10)
        await run_until_idle(database, seen.projection, retries=0)
        await connection.execute("UPDATE reactive_orch.failing_keys SET request = 'discard', due_at = now()")
        await run_until_idle(database, seen.projection)
        await write(connection, 10, keys=10)
        await rewind(connection, 15, skip_unhandled=True)
        await run_until_idle(database, seen.projection)
        await seen.taken(connection)
        seen.fails = lambda _: False
        await rewind(connection, 0)
        await run_until_idle(database, seen.projection)
        assert await seen.taken(connection) == dict.fromkeys(range(1, 21), True)


async def test_on_a_log_that_is_another_one_nothing_was_handled_before(database: str) -> None:
    seen = Seen()
    async with prepared(database) as connection:
        await write(connection, 10)
        await run_until_idle(database, seen.projection)
        await seen.taken(connection)
        await connection.execute("TRUNCATE reactive_orch.events RESTART IDENTITY")
        await write(connection, 10)
        await rewind(connection, 0)
        await run_until_idle(database, seen.projection)
        assert await seen.taken(connection) == dict.fromkeys(range(1, 11), False)


async def test_a_plain_batch_asks_for_nothing(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once a replay is over, neither the events nor the statements of a batch know of it."""
    seen = Seen()
    async with prepared(database) as connection:
        await write(connection, 10)
        await run_until_idle(database, seen.projection)
        await seen.taken(connection)
        await rewind(connection, 0)
        await run_until_idle(database, seen.projection)
        assert all((await seen.taken(connection)).values())

        def never(*_: object) -> None:
            raise AssertionError

        monkeypatch.setattr("reactive_orch.runtime.handling.in_hand.marked", never)
        await write(connection, 10)
        await run_until_idle(database, seen.projection)
        assert await seen.taken(connection) == dict.fromkeys(range(11, 21), False)


async def test_a_rewind_that_forgets_how_far_it_stood_is_caught(database: str) -> None:
    await _plant_in_the_schema(database, "handled_to_not_kept")
    with found():
        await test_events_are_replayed_up_to_where_the_checkpoint_stood(database, batch=False)


async def test_a_rewind_that_forgets_what_waited_is_caught(database: str) -> None:
    await _plant_in_the_schema(database, "unhandled_events_forgotten")
    with found():
        await test_a_rewind_before_what_waited_has_come_again_does_not_forget_it(database)


async def _plant_in_the_schema(url: str, bug: str) -> None:
    async with connected(url) as connection:
        await connection.execute(planted.schema(bug))
