"""SQLAlchemy in the handler's transaction: what it keeps, what it takes back, and what it leaves of the connection."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import re
import weakref
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import anyio
import asyncpg
import psycopg
import pytest
from sqlalchemy import ForeignKey, func, insert, select, text, update
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.exc import IntegrityError, InvalidRequestError, PendingRollbackError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship, selectinload

from integration_test.harness.connections import connected
from integration_test.harness.in_process import event, run_until_idle
from reactive_orch import Event, append, dead_letters, projection
from reactive_orch.postgres.connection import marks_of
from reactive_orch.sqlalchemy import connection, session

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from integration_test.harness.connections import Connection

    Act = Callable[[Connection], Awaitable[None]]


class Base(DeclarativeBase):
    pass


class Order(Base):
    __tablename__ = "orders"

    id: Mapped[str] = mapped_column(primary_key=True)
    data: Mapped[Any | None] = mapped_column(JSONB)
    at: Mapped[datetime] = mapped_column(server_default=func.now())
    lines: Mapped[list[Line]] = relationship(back_populates="order")


class Line(Base):
    __tablename__ = "lines"

    id: Mapped[int] = mapped_column(primary_key=True)
    order_id: Mapped[str] = mapped_column(ForeignKey("orders.id"))
    order: Mapped[Order] = relationship(back_populates="lines")


@pytest.fixture
async def log(database: str) -> AsyncIterator[Connection]:
    engine = create_async_engine(re.sub(r"^postgres(ql)?:", "postgresql+asyncpg:", database))
    async with engine.begin() as made:
        await made.run_sync(Base.metadata.create_all)
    await engine.dispose()
    async with connected(database) as own:
        yield own


async def _orders(log: Connection) -> list[str]:
    return [row["id"] for row in await log.fetch("SELECT id FROM orders ORDER BY id")]


async def _handled(database: str, log: Connection, act: Act) -> list[str]:
    """Handle one event by this; return the orders that are there then."""

    @projection("acting")
    async def acting(_event: Event, tx: Connection) -> None:
        await act(tx)

    await append(log, [event("k")])
    await run_until_idle(database, acting, retries=0)
    assert await log.fetchval("SELECT count(*) FROM reactive_orch.failing_keys") == 0
    return await _orders(log)


@pytest.mark.each_server
async def test_orm_and_core_write_with_the_batch_beside_tx(database: str, log: Connection) -> None:
    kept: set[int] = set()

    @projection("orders", batch=True)
    async def orders(events: Sequence[Event], tx: Connection) -> None:
        kept.add(await tx.fetchval("SELECT pg_backend_pid()"))
        async with session(tx) as s:
            s.add_all(Order(id=e.aggregate_id, data={"n": [1, None]}, lines=[Line(), Line()]) for e in events)
        assert json.loads(await tx.fetchval("SELECT data FROM orders LIMIT 1")) == {"n": [1, None]}, "text, as ever"
        async with session(tx) as s, s.begin():
            read = (await s.scalars(select(Order).options(selectinload(Order.lines)))).all()
            assert [(len(o.lines), o.data, o.at.tzinfo) for o in read] == [(2, {"n": [1, None]}, None)] * len(read)
            read[0].data = {"changed": True}
        async with connection(tx) as c:
            rows = await c.execute(text("SELECT data, data::json, NULL::jsonb FROM orders WHERE data ? 'changed'"))
            assert rows.one() == ({"changed": True}, {"changed": True}, None)
            await c.execute(insert(Order), [{"id": f"core {n} {kept}", "data": None} for n in range(3)])
            assert (await c.execute(update(Order).values(at=datetime.now(UTC).replace(tzinfo=None)))).rowcount > 3
            stream = await c.stream(select(Order.id))
            assert len([row async for row in stream]) > 3

    await append(log, [event(f"k{n}") for n in range(5)])
    await run_until_idle(database, orders, retries=0)
    assert await log.fetchval("SELECT count(*) FROM reactive_orch.failing_keys") == 0
    assert len(await _orders(log)) == 8
    assert await log.fetchval("SELECT count(*) FROM lines") == 10


async def test_batches_go_on_on_one_connection_which_keeps_its_codecs_and_statements(
    database: str, log: Connection
) -> None:
    seen: list[tuple[int, int]] = []

    @projection("orders")
    async def orders(e: Event, tx: Connection) -> None:
        async with session(tx) as s:
            s.add(Order(id=e.aggregate_id))
        assert not marks_of(tx).changed, "no codec was set"
        names = "SELECT count(*) FROM pg_prepared_statements WHERE statement LIKE 'INSERT INTO orders%'"
        seen.append((await tx.fetchval("SELECT pg_backend_pid()"), await tx.fetchval(names)))

    await append(log, [event(f"k{n}") for n in range(100)])
    await run_until_idle(database, orders, retries=0, batch_events=5)
    assert len(await _orders(log)) == 100
    assert len({pid for pid, _ in seen}) == 1
    assert {statements for _, statements in seen} == {1}


async def _commits_and_raises(tx: Connection) -> None:
    with contextlib.suppress(LookupError):
        async with session(tx) as s:
            s.add(Order(id="committed"))
            await s.commit()
            s.add(Order(id="flushed"))
            await s.flush()
            raise LookupError


async def _rolls_back(tx: Connection) -> None:
    await tx.execute("INSERT INTO orders (id) VALUES ('by tx')")
    async with session(tx) as s:
        s.add(Order(id="gone"))
        await s.flush()
        await s.rollback()
        s.add(Order(id="after"))


async def _suppresses_an_integrity_error(tx: Connection) -> None:
    async with session(tx) as s:
        s.add(Order(id="one"))
        await s.flush()
        with contextlib.suppress(IntegrityError):
            async with s.begin_nested():
                await s.execute(insert(Order).values(id="one"))
        s.add(Order(id="two"))
    with contextlib.suppress(IntegrityError):
        async with session(tx) as s:
            await s.execute(insert(Order).values(id="gone"))
            s.add(Order(id="one"))
    async with tx.transaction(), connection(tx) as c:
        await c.execute(insert(Order).values(id="three"))


async def _one_of_its_own_class(tx: Connection) -> None:
    class Own(AsyncSession):
        pass

    own = async_sessionmaker(class_=Own)
    async with connection(tx) as c:
        async with own(bind=c) as s, s.begin():
            assert isinstance(s, Own)
            s.add(Order(id="begun"))
        async with own(bind=c) as s:
            s.add(Order(id="not committed"))
            await s.flush()
        async with own(bind=c) as s:
            s.add(Order(id="committed"))
            await s.commit()


async def _takes_the_connection(tx: Connection) -> None:
    async with session(tx) as s:
        raw = await (await s.connection()).get_raw_connection()
        assert raw.driver_connection is tx
        s.add(Order(id="one"))


async def _cut_off(tx: Connection) -> None:
    with anyio.move_on_after(0.05) as scope:
        async with session(tx) as s:
            s.add(Order(id="gone"))
            await s.flush()
            await s.execute(select(func.pg_sleep(60)))
    assert scope.cancelled_caught
    with anyio.move_on_after(0.05):
        async with session(tx) as s:
            s.add(Order(id="gone"))
            await s.flush()
            await anyio.sleep(60)
    with contextlib.suppress(TimeoutError):
        async with connection(tx) as c:
            await c.execute(insert(Order).values(id="gone"))
            async with asyncio.timeout(0.05):
                await c.execute(select(func.pg_sleep(60)))
    async with session(tx) as s:
        s.add(Order(id="cut"))
        await s.flush()
        with anyio.move_on_after(0.05):
            await s.execute(select(func.pg_sleep(60)))
        with pytest.raises((PendingRollbackError, InvalidRequestError)):
            await s.execute(select(1))
        await s.rollback()
        with pytest.raises(InvalidRequestError, match="was cut off, by a time-out perhaps: leave its block"):
            await s.execute(select(1))
    async with session(tx) as s:
        s.add(Order(id="kept"))


KEPT: dict[str, tuple[Act, list[str]]] = {
    "commits, then raises": (_commits_and_raises, ["committed"]),
    "rolls back": (_rolls_back, ["after", "by tx"]),
    "suppresses an error in a savepoint": (_suppresses_an_integrity_error, ["one", "three", "two"]),
    "has sessions of its own": (_one_of_its_own_class, ["begun", "committed"]),
    "has the connection": (_takes_the_connection, ["one"]),
    "is cut off and goes on": (_cut_off, ["kept"]),
}


@pytest.mark.each_server
async def test_what_is_appended_through_a_session_is_put_off_and_taken_back_with_it(
    database: str, log: Connection
) -> None:
    async def act(tx: Connection) -> None:
        async with session(tx) as s:
            assert await append(s, [event("appended", "Other")]) == []
            await s.commit()
            await append(s, [event("rolled back", "Other")])
            await s.rollback()
        async with connection(tx) as c:
            assert await append(c, [event("by Core", "Other")]) == []
            assert await tx.fetchval("SELECT count(*) FROM reactive_orch.events") == 1

    await _handled(database, log, act)
    appended = await log.fetch("SELECT aggregate_id FROM reactive_orch.events WHERE event_type = 'Other' ORDER BY 1")
    assert [row["aggregate_id"] for row in appended] == ["appended", "by Core"]


@pytest.mark.each_server
@pytest.mark.parametrize("how", KEPT)
async def test_a_block_keeps_what_it_committed_and_nothing_else(database: str, log: Connection, how: str) -> None:
    act, kept = KEPT[how]
    assert await _handled(database, log, act) == kept


async def _raises_an_integrity_error(tx: Connection) -> None:
    async with session(tx) as s:
        s.add_all([Order(id="one"), Line(order_id="another")])


async def _goes_on_after_an_error(tx: Connection) -> None:
    async with session(tx) as s:
        s.add(Order(id="one"))
        await s.flush()
        with contextlib.suppress(IntegrityError):
            await s.execute(insert(Order).values(id="one"))


async def _ends_the_transaction(tx: Connection) -> None:
    async with session(tx) as s:
        s.add(Order(id="one"))
        await s.flush()
        await s.execute(text("COMMIT"))


async def _swallows_a_time_out_in_a_session(tx: Connection) -> None:
    async with session(tx) as s:
        s.add(Order(id="one"))
        await s.flush()
        with anyio.move_on_after(0.05):
            await s.execute(select(func.pg_sleep(60)))


async def _takes_too_long(tx: Connection) -> None:
    async with session(tx) as s:
        s.add(Order(id="one"))
        await s.flush()
        await s.execute(select(func.pg_sleep(60)))


async def _asks_for_another_isolation(tx: Connection) -> None:
    async with connection(tx) as c:
        await c.execution_options(isolation_level="SERIALIZABLE")
        await c.execute(insert(Order).values(id="one"))


async def _suppresses_an_error_with_autocommit(tx: Connection) -> None:
    with contextlib.suppress(ValueError):
        async with connection(tx) as c:
            await c.execution_options(isolation_level="AUTOCOMMIT")
            await c.execute(insert(Order).values(id="one"))
            raise ValueError


async def _commits_an_earlier_one_first(tx: Connection) -> None:
    async with connection(tx) as earlier, connection(tx) as later:
        await earlier.execute(insert(Order).values(id="earlier"))
        await later.execute(insert(Order).values(id="later"))
        await earlier.commit()
        await later.rollback()


async def _ends_blocks_in_another_order_than_their_transactions_began(tx: Connection) -> None:
    async with session(tx) as outer:
        async with session(tx) as inner:
            inner.add(Order(id="inner"))
            await inner.flush()
            outer.add(Order(id="outer"))
            await outer.flush()
        await outer.rollback()


FAILURES: dict[str, tuple[Act, str]] = {
    "an integrity error": (_raises_an_integrity_error, "IntegrityError: .*ForeignKeyViolation"),
    "an error that was suppressed": (_goes_on_after_an_error, "InFailedSQLTransaction"),
    "a COMMIT as text": (
        _ends_the_transaction,
        "may not end the transaction|ended the transaction",
    ),
    "a time-out that was swallowed": (_swallows_a_time_out_in_a_session, "PendingRollbackError"),
    "the time-out of a handler": (_takes_too_long, "took longer than 0.5 s"),
    "another isolation": (_asks_for_another_isolation, "can get no isolation level"),
    "AUTOCOMMIT": (_suppresses_an_error_with_autocommit, "can get no isolation level"),
    "a commit of an earlier one": (_commits_an_earlier_one_first, "are nested"),
    "blocks that are not nested": (_ends_blocks_in_another_order_than_their_transactions_began, "are nested"),
}


async def _takes_back_an_earlier_one(tx: Connection) -> None:
    async with connection(tx) as earlier, connection(tx) as later:
        await earlier.execute(insert(Order).values(id="earlier"))
        await later.execute(insert(Order).values(id="later"))
        await earlier.rollback()
        await later.rollback()
        await earlier.execute(insert(Order).values(id="kept"))


async def test_a_rollback_takes_back_what_began_later(database: str, log: Connection) -> None:
    assert await _handled(database, log, _takes_back_an_earlier_one) == ["kept"]


@pytest.mark.each_server
@pytest.mark.parametrize("what", FAILURES)
async def test_what_fails_a_session_fails_the_event_and_nothing_is_kept(
    database: str, log: Connection, what: str
) -> None:
    act, why = FAILURES[what]

    @projection("failing", timeout=0.5)
    async def failing(e: Event, tx: Connection) -> None:
        if e.event_type == "Bad":
            await act(tx)
        else:
            async with session(tx) as s:
                s.add(Order(id=e.aggregate_id))

    await append(log, [event("k1"), event("k2", "Bad"), event("k3")])
    await run_until_idle(database, failing, retries=0)
    assert await _orders(log) == ["k1", "k3"]
    (failed,) = await dead_letters.listed(log, "test")
    assert re.search(why, str(failed.failure)), failed.failure


async def test_a_deadlock_is_no_attempt_of_the_event(database: str, log: Connection) -> None:
    calls = 0

    @projection("meeting")
    async def meeting(_event: Event, tx: Connection) -> None:
        nonlocal calls
        calls += 1
        async with session(tx) as s:
            await s.execute(update(Order).where(Order.id == "a").values(data={}))
            if calls == 1:
                meets.set()
            await s.execute(update(Order).where(Order.id == "b").values(data={}))

    meets = asyncio.Event()
    await log.execute("INSERT INTO orders (id) VALUES ('a'), ('b')")
    await append(log, [event("k")])

    async def rival() -> None:
        async with connected(database) as other, other.transaction():
            await other.execute("SET LOCAL deadlock_timeout = '1h'")
            await other.execute("UPDATE orders SET data = '1' WHERE id = 'b'")
            await meets.wait()
            await other.execute("UPDATE orders SET data = '1' WHERE id = 'a'")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(rival)
        await run_until_idle(database, meeting, retries=0, on_error="halt")
    assert calls == 2
    assert await log.fetchval("SELECT count(*) FROM orders WHERE data = '{}'") == 2


@pytest.mark.usefixtures("log")
async def test_nothing_is_kept_of_a_connection_that_is_gone(database: str) -> None:
    gone: list[weakref.ref[Any]] = []
    for _ in range(3):
        own = await asyncpg.connect(database)
        async with own.transaction(), session(own) as s:
            await s.execute(select(Order))
        await own.close()
        gone.append(weakref.ref(own))
        del own, s
    gc.collect()
    assert [ref() for ref in gone] == [None] * 3


async def test_whoever_gives_anything_else_is_told_so(database: str) -> None:
    engine = create_async_engine("postgresql+asyncpg://")
    async with asyncpg.create_pool(database, min_size=1) as pool, connected(database) as own:
        async with await psycopg.AsyncConnection.connect(database) as other:
            for given in (engine, other, pool, None):
                with pytest.raises(TypeError, match=r"take the tx of an async handler, .*, not \w+'s \w+$"):
                    async with session(given):  # type: ignore[arg-type]  # the mistake
                        pass
        with pytest.raises(ValueError, match="this connection is in no transaction"):
            async with connection(own):
                pass
        async with pool.acquire() as lent:
            pass
        with pytest.raises(ValueError, match="this connection is closed, or was given back"):
            async with session(lent):
                pass
