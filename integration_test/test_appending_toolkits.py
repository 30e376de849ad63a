"""`append()` on connections of psycopg and SQLAlchemy: in the caller's transaction, with the same checks."""

from __future__ import annotations

import contextlib
import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import UUID

import psycopg
import pytest
import sqlalchemy
from psycopg.rows import dict_row
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from integration_test.harness.connections import connected
from reactive_orch import ConfigError, Conflict, Expected, NewEvent, append, read_stream

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from django.db.backends.base.base import BaseDatabaseWrapper

    from integration_test.harness.connections import Connection


async def awaited(value: Any) -> Any:
    return await value if inspect.isawaitable(value) else value


@dataclass
class Writer:
    """One toolkit's connection, whether its calls are awaited or not."""

    connection: Any

    async def append(self, *arguments: Any) -> list[int]:
        positions: list[int] = await awaited(append(self.connection, *arguments))
        return positions

    async def commit(self) -> None:
        await awaited(self.connection.commit())

    async def roll_back(self) -> None:
        await awaited(self.connection.rollback())


def by(driver: str, url: str) -> sqlalchemy.URL:
    return sqlalchemy.make_url(url).set(drivername=f"postgresql+{driver}")


@contextlib.asynccontextmanager
async def of_psycopg(url: str) -> AsyncIterator[Any]:
    with psycopg.connect(url, row_factory=dict_row, cursor_factory=psycopg.ClientCursor) as connection:
        yield connection


@contextlib.asynccontextmanager
async def of_async_psycopg(url: str) -> AsyncIterator[Any]:
    async with await psycopg.AsyncConnection.connect(url, row_factory=dict_row) as connection:
        yield connection


@contextlib.asynccontextmanager
async def of_sqlalchemy(url: str) -> AsyncIterator[Any]:
    engine = sqlalchemy.create_engine(by("psycopg", url))
    with engine.connect() as connection:
        yield connection
    engine.dispose()


@contextlib.asynccontextmanager
async def of_session(url: str) -> AsyncIterator[Any]:
    engine = sqlalchemy.create_engine(by("psycopg", url))
    with Session(engine) as session:
        yield session
    engine.dispose()


@contextlib.asynccontextmanager
async def of_async_sqlalchemy(url: str) -> AsyncIterator[Any]:
    engine = create_async_engine(by("asyncpg", url))
    async with engine.connect() as connection:
        yield connection
    await engine.dispose()


def of_async_session(driver: str) -> Callable[[str], contextlib.AbstractAsyncContextManager[Any]]:
    @contextlib.asynccontextmanager
    async def opened(url: str) -> AsyncIterator[Any]:
        engine = create_async_engine(by(driver, url))
        async with AsyncSession(engine) as session:
            yield session
        await engine.dispose()

    return opened


TOOLKITS = {
    "psycopg": of_psycopg,
    "async psycopg": of_async_psycopg,
    "SQLAlchemy": of_sqlalchemy,
    "SQLAlchemy's session": of_session,
    "SQLAlchemy on asyncpg": of_async_sqlalchemy,
    "SQLAlchemy's session on asyncpg": of_async_session("asyncpg"),
    "SQLAlchemy's async session on psycopg": of_async_session("psycopg"),
}


@pytest.fixture(params=TOOLKITS)
async def writer(request: pytest.FixtureRequest, database: str) -> AsyncIterator[Writer]:
    """A writer by each toolkit."""
    async with TOOLKITS[request.param](database) as connection:
        yield Writer(connection)


@pytest.fixture
async def reader(database: str) -> AsyncIterator[Connection]:
    """Somebody else."""
    async with connected(database) as made:
        yield made


def order(number: int = 1, event_type: str = "Placed") -> NewEvent:
    return NewEvent(aggregate_type="Order", aggregate_id=str(number), event_type=event_type)


async def log_of(reader: Connection) -> list[tuple[int, str, int]]:
    rows = await reader.fetch(
        "SELECT global_position, aggregate_id, aggregate_version FROM reactive_orch.events ORDER BY 1"
    )
    return [tuple(row) for row in rows]


async def test_the_caller_commits_and_has_the_positions(writer: Writer, reader: Connection) -> None:
    positions = await writer.append([order(1), order(2), order(1, "Paid")])
    assert await log_of(reader) == []
    await writer.commit()
    assert await log_of(reader) == list(zip(positions, ("1", "2", "1"), (1, 1, 2), strict=True))


async def test_what_the_caller_rolls_back_is_gone(writer: Writer, reader: Connection) -> None:
    await writer.append([order(1)])
    await writer.roll_back()
    await writer.append([order(2)], Expected.NO_STREAM)
    await writer.commit()
    assert [key for _, key, _ in await log_of(reader)] == ["2"]


async def test_another_version_is_a_conflict(writer: Writer, reader: Connection) -> None:
    await append(reader, [order(), order()])
    with pytest.raises(Conflict, match="default/Order/1 is at version 2, not at 1"):
        await writer.append([order()], 1)
    await writer.roll_back()
    await writer.append([order()], 2)
    await writer.commit()
    assert [version for _, _, version in await log_of(reader)] == [1, 2, 3]


async def test_an_id_that_is_taken_is_a_conflict(writer: Writer) -> None:
    same = NewEvent(aggregate_type="Order", aggregate_id="1", event_type="Placed", event_id=UUID(int=7))
    with pytest.raises(Conflict, match="or an event_id is already taken"):
        await writer.append([same, same])
    await writer.roll_back()


async def test_every_field_arrives_as_by_asyncpg(writer: Writer, reader: Connection) -> None:
    full = NewEvent(
        aggregate_type="Order",
        aggregate_id="é%s $1 %(p1)s",
        event_type="Placed",
        payload=bytes(range(256)),
        bounded_context='sh"op',
        event_version=3,
        event_id=UUID(int=1),
        trace_id="trace",
        correlation_id="correlation",
        causation_id="{causation}",
        metadata={"by": ["ann", None], "%": "\\"},
        partition_key="key",
    )
    plain = NewEvent(aggregate_type="Order", aggregate_id=full.aggregate_id, event_type="Paid", bounded_context='sh"op')
    await writer.append([full, plain])
    await writer.commit()
    first, second = await read_stream(reader, "Order", full.aggregate_id, context='sh"op')
    same = ("event_type", "event_version", "event_id", "trace_id", "correlation_id", "causation_id", "metadata")
    for name in (*same, "payload", "partition_key"):
        assert getattr(first, name) == getattr(full, name), name
    assert (second.event_type, second.payload, second.trace_id, second.metadata) == ("Paid", b"", None, {})


async def test_nothing_is_nothing(writer: Writer) -> None:
    assert await writer.append([]) == []


@pytest.mark.parametrize("kind", ["psycopg", "async psycopg"])
async def test_with_autocommit_it_has_a_transaction_of_its_own(database: str, reader: Connection, kind: str) -> None:
    async with TOOLKITS[kind](database) as connection:
        await awaited(connection.set_autocommit(True))
        writer = Writer(connection)
        twice = NewEvent(aggregate_type="Order", aggregate_id="1", event_type="Placed", event_id=UUID(int=7))
        await writer.append([order(1), order(2)])
        with pytest.raises(Conflict):
            await writer.append([order(3), twice, twice])
    assert [key for _, key, _ in await log_of(reader)] == ["1", "2"]


async def test_it_is_within_the_savepoint_of_the_caller(database: str, reader: Connection) -> None:
    with psycopg.connect(database, autocommit=True) as connection, connection.transaction():
        append(connection, [order(1)])
        with connection.transaction(force_rollback=True):
            append(connection, [order(2)])
    assert [key for _, key, _ in await log_of(reader)] == ["1"]


@pytest.mark.parametrize("driver", ["psycopg", "asyncpg"])
async def test_sqlalchemys_autocommit_is_refused(database: str, reader: Connection, driver: str) -> None:
    engine = create_async_engine(by(driver, database), isolation_level="AUTOCOMMIT")
    async with engine.connect() as connection:
        with pytest.raises(ValueError, match="has the isolation level AUTOCOMMIT"):
            await append(connection, [order()])
    await engine.dispose()
    assert await log_of(reader) == []


async def test_what_is_no_connection_is_refused_in_words(database: str) -> None:
    engine, async_engine = (
        sqlalchemy.create_engine(by("psycopg", database)),
        create_async_engine(by("asyncpg", database)),
    )
    wrong: list[tuple[Any, str]] = [
        (
            None,
            "append takes a connection of asyncpg or psycopg 3, or a connection or session of SQLAlchemy, not NoneType",
        ),
        (database, "not str"),
        (engine, r"not sqlalchemy\.Engine: connect, or begin a session, and append on that"),
        (async_engine, r"not sqlalchemy\.AsyncEngine: connect, or begin a session"),
    ]
    for connection, words in wrong:
        with pytest.raises(TypeError, match=words):
            append(connection, [order()])


async def test_a_closed_connection_is_refused_in_words(database: str) -> None:
    closed = psycopg.connect(database)
    closed.close()
    with pytest.raises(ValueError, match="append takes an open connection: this Connection is closed"):
        append(closed, [order()])
    async with connected(database) as gone:
        pass
    with pytest.raises(ValueError, match="append takes an open connection"):
        await append(gone, [order()])


async def test_events_that_are_none_are_refused_in_words(reader: Connection) -> None:
    wrong: list[tuple[Any, str]] = [
        (order(), "not NewEvent"),
        ([{"type": "Placed"}], "not dict"),
        ("Placed", "not str"),
    ]
    for events, words in wrong:
        with pytest.raises(TypeError, match=f"append takes a list of NewEvents: .*, {words}"):
            await append(reader, events)


@pytest.mark.parametrize("kind", TOOLKITS)
async def test_a_database_without_a_log_is_named(empty_database: str, kind: str) -> None:
    async with TOOLKITS[kind](empty_database) as connection:
        with pytest.raises(
            ConfigError, match="no log in the database of this connection: run `python -m reactive_orch"
        ):
            await awaited(append(connection, [order()]))


@pytest.fixture
def django(database: str) -> Iterator[BaseDatabaseWrapper]:
    """Django's connection, one that is kept from request to request."""
    from django.conf import settings
    from django.db.utils import ConnectionHandler

    if not settings.configured:
        settings.configure()
    url = sqlalchemy.make_url(database)
    where = {"HOST": url.host, "PORT": url.port, "USER": url.username, "NAME": url.database}
    made = ConnectionHandler({"default": {"ENGINE": "django.db.backends.postgresql", "CONN_MAX_AGE": None, **where}})
    yield made["default"]
    made.close_all()


def test_django_connects_anew_when_its_connection_was_lost(database: str, django: BaseDatabaseWrapper) -> None:
    from django.db import OperationalError

    append(django, [order(1)])
    with psycopg.connect(database, autocommit=True) as other:
        other.execute("SELECT pg_terminate_backend(%s, 10000)", [django.connection.info.backend_pid])
    with pytest.raises(OperationalError):
        append(django, [order(2)])
    django.close_if_unusable_or_obsolete()  # as at the end of each request
    assert append(django, [order(3)])


def test_what_django_will_roll_back_is_refused(django: BaseDatabaseWrapper) -> None:
    from django.db.transaction import TransactionManagementError

    append(django, [order(1)])
    django.in_atomic_block = django.needs_rollback = True  # as an inner atomic(savepoint=False) that has failed
    with pytest.raises(TransactionManagementError):
        append(django, [order(2)])
    django.in_atomic_block = django.needs_rollback = False
    with pytest.raises(Conflict, match="is at version 1, not at 0"):
        append(django, [order(1)], Expected.NO_STREAM)
