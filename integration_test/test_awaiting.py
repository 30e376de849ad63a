"""`handled()`: it returns when a projection has handled a position, at once, and says why when it has not."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
from typing import TYPE_CHECKING, Any

import anyio
import psycopg
import pytest
import sqlalchemy
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

from integration_test.harness.command_line import run
from integration_test.harness.connections import connected
from integration_test.harness.waiting import wait_until
from reactive_orch import (
    Config,
    Event,
    NewEvent,
    Node,
    NotHandled,
    Unavailable,
    Worker,
    append,
    awaiting,
    dead_letters,
    handled,
    projection,
)
from reactive_orch.postgres import handled as handled_in_postgres

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from integration_test.harness.connections import Connection
    from reactive_orch import Projection


@pytest.fixture
async def connection(database: str) -> AsyncIterator[Connection]:
    """An application's connection, and the read model."""
    async with connected(database) as made:
        await made.execute("CREATE TABLE orders (id text PRIMARY KEY, state text NOT NULL)")
        yield made


@pytest.fixture
def answered_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody looks by himself: without an answer nothing returns."""
    monkeypatch.setattr(awaiting, "LOOK_AGAIN_S", 600.0)
    monkeypatch.setattr(awaiting, "LOOK_AGAIN_MOST_S", 600.0)


@contextlib.asynccontextmanager
async def serving(url: str, *projections: Projection, workers: int = 1, **settings: Any) -> AsyncIterator[list[Worker]]:
    """Run workers, each on a node of its own, as processes do."""
    async with contextlib.AsyncExitStack() as stack:
        nodes = [await stack.enter_async_context(Node(Config(database_url=url, **settings))) for _ in range(workers)]
        tasks = await stack.enter_async_context(anyio.create_task_group())
        serve = [Worker(node, "shop", list(projections)) for node in nodes]
        for worker in serve:
            tasks.start_soon(worker.run)

        async def all_serve() -> bool:
            return all(worker.state.value == "serving" for worker in serve)

        await wait_until(all_serve, what="all workers serve")
        yield serve
        for worker in serve:
            worker.stop()


def order(key: object, event_type: str = "placed", aggregate_type: str = "Order") -> NewEvent:
    return NewEvent(aggregate_type=aggregate_type, aggregate_id=str(key), event_type=event_type)


@projection("orders", aggregate_types=["Order"])
async def orders(event: Event, tx: Connection) -> None:
    if event.event_type == "bad":
        raise ValueError(event.event_type)
    await tx.execute(
        "INSERT INTO orders VALUES ($1, $2) ON CONFLICT (id) DO UPDATE SET state = excluded.state",
        event.aggregate_id,
        event.event_type,
    )


async def state(connection: Connection, key: object) -> str | None:
    found: str | None = await connection.fetchval("SELECT state FROM orders WHERE id = $1", str(key))
    return found


@pytest.mark.usefixtures("answered_only")
async def test_what_was_written_is_read_at_once(database: str, connection: Connection) -> None:
    """By two workers, each of which handles some; nobody waits for a timer."""
    draw = random.Random(7)
    async with serving(database, orders, workers=2) as workers:
        for number in range(60):
            key = draw.randrange(40)
            (position,) = await append(connection, [order(key, f"s{number}")])
            await handled(connection, "shop", "orders", position)
            assert await state(connection, key) == f"s{number}"
        assert all(sum(worker.events_handled.values()) for worker in workers)


@pytest.mark.usefixtures("answered_only")
async def test_many_wait_at_once_beside_a_load(database: str, connection: Connection) -> None:
    async def one(key: str) -> None:
        async with connected(database) as own:
            for number in range(5):
                positions = await append(own, [order(key, f"s{number}"), order(f"{key}b", f"s{number}")])
                await handled(own, "shop", "orders", positions)
                assert (await state(own, key), await state(own, f"{key}b")) == (f"s{number}", f"s{number}")

    async with serving(database, orders, workers=2), anyio.create_task_group() as tasks:
        for number in range(20):
            tasks.start_soon(one, f"k{number}")
    assert await connection.fetchval("SELECT count(*) FROM orders") == 40


@pytest.mark.usefixtures("answered_only")
async def test_what_the_filter_leaves_out_is_not_waited_for(database: str, connection: Connection) -> None:
    async with serving(database, orders):
        (position,) = await append(connection, [order(1, aggregate_type="Invoice")])
        await handled(connection, "shop", "orders", position)


@pytest.mark.usefixtures("answered_only")
async def test_the_whole_projection_has_got_as_far(database: str, connection: Connection) -> None:
    async with serving(database, orders, workers=2):
        positions = await append(connection, [order(key) for key in range(200)])
        await handled(connection, "shop", "orders", max(positions), whole=True)
        assert await connection.fetchval("SELECT count(*) FROM orders") == 200
        assert await connection.fetchval("SELECT min(position) FROM reactive_orch.checkpoints") >= max(positions)


async def test_it_is_found_without_an_answer_too(database: str, connection: Connection) -> None:
    """The only worker is one that does not hear it: it comes when the first look is over."""
    (position,) = await append(connection, [order(1)])
    waiting = asyncio.create_task(handled(connection, "shop", "orders", position, timeout=60))
    async with serving(database, orders):
        await waiting
    assert await state(connection, 1) == "placed"


@pytest.mark.usefixtures("answered_only")
async def test_what_is_handled_already_is_not_waited_for(database: str, connection: Connection) -> None:
    async with serving(database, orders):
        positions = await append(connection, [order(1), order(2)])
        await handled(connection, "shop", "orders", positions)
    await handled(connection, "shop", "orders", positions)
    await handled(connection, "shop", "orders", [])


async def reason(connection: Connection, position: int, **options: Any) -> str:
    with pytest.raises(NotHandled) as raised:
        await handled(connection, "shop", "orders", position, timeout=0.05, **options)
    assert str(raised.value).startswith(
        f"position {position} is not handled by projection 'orders' of replica set 'shop'"
    )
    return raised.value.reason


_ORDERS = "--replica-set", "shop", "--projection", "orders"


async def test_it_says_why_nothing_is_handled(database: str, connection: Connection) -> None:
    (position,) = await append(connection, [order(1)])
    assert await reason(connection, position) == "no worker has ever run this projection"
    async with serving(database, orders) as workers:
        (runner,) = workers[0]._runners.by_subscription.values()  # noqa: SLF001 - when it rests

        async def rests() -> bool:
            return runner.resting is not None

        await handled(connection, "shop", "orders", position)
        (later,) = await append(connection, [order(2)])
        await handled(connection, "shop", "orders", later)
        assert "no event at this position: has its transaction been committed?" in await reason(connection, later + 7)
        (await run("pause", *_ORDERS, DATABASE_URL=database)).done()
        await wait_until(rests, what="the worker has heard of it")
        (paused,) = await append(connection, [order(1)])
        assert await reason(connection, paused) == "the projection is paused"
        (await run("resume", *_ORDERS, DATABASE_URL=database)).done()
        await handled(connection, "shop", "orders", paused)
    (last,) = await append(connection, [order(1)])
    assert await reason(connection, last) == "no worker runs it"


async def test_it_says_how_far_behind_it_is(database: str, connection: Connection) -> None:
    go_on = asyncio.Event()

    @projection("orders")
    async def slow(event: Event, tx: Connection) -> None:  # noqa: ARG001
        await go_on.wait()

    async with serving(database, slow):
        (position,) = await append(connection, [order(1)])
        assert await reason(connection, position) == f"the partition is at position 0, {position} positions behind"
        assert await reason(connection, position, whole=True) == (
            f"its slowest partition is at position 0, {position} positions behind"
        )
        go_on.set()
        await handled(connection, "shop", "orders", position)


async def test_a_key_that_fails_is_named_and_what_is_discarded_is_no_more_waited_for(
    database: str, connection: Connection
) -> None:
    async with serving(database, orders, retries=0):
        bad, after, other = await append(connection, [order(1, "bad"), order(1), order(2)])
        await handled(connection, "shop", "orders", other)
        assert await reason(connection, bad) == "its key is parked after ValueError"
        assert await reason(connection, after) == "its key is parked after ValueError"
        async with asyncio.timeout(30):  # it takes a person: nobody waits that long
            with pytest.raises(NotHandled, match="its key is parked"):
                await handled(connection, "shop", "orders", after, timeout=600)
        assert await reason(connection, other, whole=True) == (
            "a key with an event up to there is parked after ValueError"
        )
        keys = await dead_letters.listed(connection, "shop")
        await dead_letters.discard(connection, "shop", keys, by="test")
        await handled(connection, "shop", "orders", [bad, after, other])
        await handled(connection, "shop", "orders", other, whole=True)


async def test_who_takes_over_answers(database: str, connection: Connection) -> None:
    """The worker that held the event's partition stops while its event is waited for."""
    held = asyncio.Event()

    @projection("orders")
    async def slow(event: Event, tx: Connection) -> None:
        if not held.is_set():
            held.set()
            await asyncio.sleep(600)
        await tx.execute("INSERT INTO orders VALUES ($1, 'placed')", event.aggregate_id)

    async with serving(database, slow, workers=2, grace_s=0.1) as workers:
        (position,) = await append(connection, [order(1)])
        waiting = asyncio.create_task(handled(connection, "shop", "orders", position, timeout=60))
        await held.wait()
        next(worker for worker in workers if worker.busy).stop()
        await waiting
        assert await state(connection, 1) == "placed"


@pytest.mark.usefixtures("answered_only")
async def test_what_is_notified_by_others_does_no_harm(database: str, connection: Connection) -> None:
    huge = "9" * 5000
    async with serving(database, orders):
        for told in ("", "{}", "[]", "[1,2,3,4,5,6]", '["shop","orders","events","x",1,null]', f"[{huge}]", "\\"):
            await connection.execute("SELECT pg_notify('reactive_orch_awaited', $1)", told)
        told = '["shop","orders","events",%d,1,[0,1]]'
        await connection.execute("SELECT pg_notify('reactive_orch_awaited', $1)", told % (1 << 40))
        (position,) = await append(connection, [order(1)])
        await handled(connection, "shop", "orders", position)


async def test_sqlalchemy_on_asyncpg_will_do(database: str, connection: Connection) -> None:
    engine = create_async_engine(sqlalchemy.make_url(database).set(drivername="postgresql+asyncpg"))
    async with serving(database, orders), AsyncSession(engine) as session:
        positions = await append(session, [order(1)])
        await session.commit()
        await handled(session, "shop", "orders", positions)
        assert await state(connection, 1) == "placed"
    await engine.dispose()


async def test_bad_input_is_refused_in_words(database: str, connection: Connection) -> None:
    async with await psycopg.AsyncConnection.connect(database) as other:
        with pytest.raises(TypeError, match="SQLAlchemy on asyncpg: others do not hear while they wait"):
            await handled(other, "shop", "orders", 1)
    with psycopg.connect(database) as blocking, pytest.raises(TypeError, match="others do not hear while they wait"):
        _ = handled(blocking, "shop", "orders", 1)  # type: ignore[arg-type]  # at once: nobody awaits what is not async
    with pytest.raises(TypeError, match=r"handled takes a connection of .*, not NoneType"):
        await handled(None, "shop", "orders", 1)  # type: ignore[arg-type]
    async with connection.transaction():
        with pytest.raises(ValueError, match="in no transaction: commit first"):
            await handled(connection, "shop", "orders", 1)
    for position in ("1", 0, [None], 1.5, True):
        with pytest.raises(TypeError, match="handled takes a position of the log, or several"):
            await handled(connection, "shop", "orders", position)  # type: ignore[arg-type]
    for timeout in (0, -1, "1"):
        with pytest.raises(ValueError, match="timeout must be a number of seconds"):
            await handled(connection, "shop", "orders", 1, timeout=timeout)  # type: ignore[arg-type]


async def test_the_connection_is_left_as_it_was(connection: Connection) -> None:
    (position,) = await append(connection, [order(1)])
    await reason(connection, position)
    with anyio.move_on_after(0.05):
        await handled(connection, "shop", "orders", position, timeout=60)
    assert await connection.fetch("SELECT pg_listening_channels()") == []
    assert not connection.is_in_transaction()


async def test_workers_are_told_by_the_clock_and_of_one_session(database: str, connection: Connection) -> None:
    """A lane that has read so far answers at once: told after each answer, it would answer for ever."""
    told: list[str] = []
    async with serving(database, orders, retries=0), connected(database) as listener:
        await listener.add_listener("reactive_orch_awaited", lambda *heard: told.append(heard[3]))
        bad, other = await append(connection, [order(1, "bad"), order(2)])
        await handled(connection, "shop", "orders", other)
        for _ in range(2):
            with pytest.raises(NotHandled, match="is parked after ValueError"):
                await handled(connection, "shop", "orders", bad, timeout=0.7)
        await listener.fetchval("SELECT 1")
    assert len(told) < 10  # at 0 s and 0.25 s of each
    assert len({json.loads(each)[3] for each in told}) == 1


async def test_a_database_that_does_not_answer_is_not_waited_for(
    database: str, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handled_in_postgres, "ANSWER_TIMEOUT_S", 0.2)
    (position,) = await append(connection, [order(1)])
    async with connected(database) as frozen:
        backend = frozen.get_server_pid()
        os.kill(backend, signal.SIGSTOP)
        try:
            async with asyncio.timeout(20):
                with pytest.raises(Unavailable):
                    await handled(frozen, "shop", "orders", position, timeout=0.1)
        finally:
            os.kill(backend, signal.SIGCONT)
