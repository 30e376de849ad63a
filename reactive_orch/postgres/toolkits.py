"""The connections on which an application appends: of asyncpg, psycopg 3 and SQLAlchemy, awaited or not.

Each is what appending asks of it: to send a statement, and to say in which transaction. No toolkit is imported here:
whose connection it is, its class tells, and that has been imported then.
"""

from __future__ import annotations

import contextlib
import re
from abc import ABC, abstractmethod
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import asyncpg

from reactive_orch.postgres.connection import is_closed

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping
    from contextlib import AbstractAsyncContextManager, AbstractContextManager

    from reactive_orch.postgres.connection import AnyConnection
    from reactive_orch.postgres.steps import Rows, Statement

ACCEPTED = "a connection of asyncpg or psycopg 3, or a connection or session of SQLAlchemy"

_PLACEHOLDER = re.compile(r"\$(\d+)")


class AsyncTransactional(Protocol):
    """What psycopg's `AsyncConnection`, and SQLAlchemy's `AsyncConnection` and `AsyncSession` have in common."""

    def commit(self) -> Coroutine[Any, Any, None]:
        """Commit."""
        ...


class Transactional(Protocol):
    """What psycopg's `Connection`, and SQLAlchemy's `Connection` and `Session` have in common."""

    def commit(self) -> None:
        """Commit."""


class AsyncToolkit(ABC):
    """A connection whose calls are awaited."""

    @abstractmethod
    async def ask(self, statement: Statement) -> Rows:
        """Send a statement, return its rows."""

    @abstractmethod
    def transaction(self) -> AbstractAsyncContextManager[object]:
        """Be in a transaction: the caller's, or one of our own where there is none."""

    @abstractmethod
    async def in_asyncpg(self) -> AnyConnection | None:
        """Return the connection of asyncpg's below it: that may be one of ours, in a batch; None if it is another's."""


class SyncToolkit(ABC):
    """A connection whose calls are not."""

    @abstractmethod
    def ask(self, statement: Statement) -> Rows:
        """Send a statement, return its rows."""

    @abstractmethod
    def transaction(self) -> AbstractContextManager[object]:
        """Be in a transaction: the caller's, or one of our own where there is none."""


def toolkit_of(connection: Any, taker: str = "append", accepted: str = ACCEPTED) -> AsyncToolkit | SyncToolkit:
    """Return how to use a connection. Raises TypeError for what is none, ValueError for one that is closed."""
    made = _toolkit_of(connection)
    if made is None:
        what = f"{_home(connection)}.{type(connection).__name__}".removeprefix("builtins.")
        msg = f"{taker} takes {accepted}, not {what}{_hint(connection)}"
        raise TypeError(msg)
    if _is_gone(connection):
        msg = f"{taker} takes an open connection: this {type(connection).__name__} is closed, or given back to its pool"
        raise ValueError(msg)
    return made


def _toolkit_of(connection: Any) -> AsyncToolkit | SyncToolkit | None:
    if isinstance(connection, _ASYNCPG):
        return _Asyncpg(connection)
    for name in _names(type(connection)):
        if name in _MADE_OF:
            return _MADE_OF[name](connection)
    return None


def _hint(connection: Any) -> str:
    """Return what to do about what has connections, and is none."""
    name = type(connection).__name__
    if name.endswith("Pool"):
        return ": take a connection from the pool first, and append on that"
    if name.endswith(("Engine", "sessionmaker")):
        return ": connect, or begin a session, and append on that"
    return ""


def _home(connection: Any) -> str:
    return type(connection).__module__.partition(".")[0]


def _names(kind: type) -> tuple[str, ...]:
    """Return the names of a class and of those that it inherits from, as `library.Class`."""
    return tuple(f"{each.__module__.partition('.')[0]}.{each.__qualname__}" for each in kind.__mro__)


def _is_gone(connection: Any) -> bool:
    if isinstance(connection, _ASYNCPG):
        return is_closed(connection)
    return getattr(connection, "closed", False) is True


class _Asyncpg(AsyncToolkit):
    def __init__(self, connection: AnyConnection) -> None:
        self._connection = connection

    async def ask(self, statement: Statement) -> Rows:
        return await self._connection.fetch(statement.sql, *statement.arguments)

    def transaction(self) -> AbstractAsyncContextManager[object]:
        open_one = self._connection.is_in_transaction()
        return contextlib.nullcontext() if open_one else self._connection.transaction()

    async def in_asyncpg(self) -> AnyConnection:
        return self._connection


class _Psycopg(SyncToolkit):
    """Its `$1` is understood by cursors of our own, whatever cursors and rows the application has chosen."""

    def __init__(self, connection: Any) -> None:
        import psycopg
        from psycopg.rows import tuple_row

        self._connection = connection
        self._cursor: Any = partial(psycopg.RawCursor, connection, row_factory=tuple_row)

    def ask(self, statement: Statement) -> Rows:
        with self._cursor() as cursor:
            rows: Rows = cursor.execute(statement.sql, statement.arguments).fetchall()
        return rows

    def transaction(self) -> AbstractContextManager[object]:
        return self._connection.transaction() if _commits_each(self._connection) else contextlib.nullcontext()


class _AsyncPsycopg(AsyncToolkit):
    def __init__(self, connection: Any) -> None:
        import psycopg
        from psycopg.rows import tuple_row

        self._connection = connection
        self._cursor: Any = partial(psycopg.AsyncRawCursor, connection, row_factory=tuple_row)

    async def ask(self, statement: Statement) -> Rows:
        async with self._cursor() as cursor:
            rows: Rows = await (await cursor.execute(statement.sql, statement.arguments)).fetchall()
        return rows

    def transaction(self) -> AbstractAsyncContextManager[object]:
        return self._connection.transaction() if _commits_each(self._connection) else contextlib.nullcontext()

    async def in_asyncpg(self) -> None:
        return None


def _commits_each(connection: Any) -> bool:
    """Tell whether psycopg would commit the next statement by itself. Else it begins what the application commits."""
    idle: bool = connection.info.transaction_status.name == "IDLE"
    return idle and bool(connection.autocommit)


class _Sqlalchemy(SyncToolkit):
    """It begins a transaction with the first statement; the application commits it."""

    def __init__(self, connect: Callable[[], Any]) -> None:
        """`connect` returns the connection, of a session the one that it is using."""
        self._connect = connect

    def ask(self, statement: Statement) -> Rows:
        connection = self._connect()
        rows: Rows = connection.exec_driver_sql(*_in_style(statement, connection.dialect)).fetchall()
        _demand_transaction(connection.connection.driver_connection)
        return rows

    def transaction(self) -> AbstractContextManager[object]:
        return contextlib.nullcontext()


class _AsyncSqlalchemy(AsyncToolkit):
    def __init__(self, connect: Callable[[], Awaitable[Any]]) -> None:
        self._connect = connect

    async def ask(self, statement: Statement) -> Rows:
        connection = await self._connect()
        rows: Rows = (await connection.exec_driver_sql(*_in_style(statement, connection.dialect))).fetchall()
        _demand_transaction(await _driver_connection(connection))
        return rows

    def transaction(self) -> AbstractAsyncContextManager[object]:
        return contextlib.nullcontext()

    async def in_asyncpg(self) -> AnyConnection | None:
        driver = await _driver_connection(await self._connect())
        return driver if isinstance(driver, _ASYNCPG) else None


async def _driver_connection(connection: Any) -> Any:
    return (await connection.get_raw_connection()).driver_connection


def _in_style(statement: Statement, dialect: Any) -> tuple[str, Any]:
    """Return a statement and its arguments as a driver takes them. Raises TypeError for one that is not known."""
    if dialect.driver not in _DRIVERS:
        msg = f"append knows SQLAlchemy's drivers {' and '.join(_DRIVERS)}, not {dialect.driver}"
        raise TypeError(msg)
    if dialect.paramstyle == "numeric_dollar":
        return statement
    sql = _PLACEHOLDER.sub(r"%(p\1)s", statement.sql.replace("%", "%%"))
    return sql, {f"p{number}": value for number, value in enumerate(statement.arguments, 1)}


def _demand_transaction(driver: Any) -> None:
    """Raise ValueError where each statement is committed by itself: appends would not take turns."""
    in_one = (
        driver.is_in_transaction() if isinstance(driver, _ASYNCPG) else driver.info.transaction_status.name != "IDLE"
    )
    if not in_one:
        msg = "append takes a connection that is in a transaction: this one has the isolation level AUTOCOMMIT"
        raise ValueError(msg)


async def _itself(connection: Any) -> Any:
    return connection


class _Django(_Psycopg):
    """Errors are Django's own: so it hears that the connection is lost, and connects anew for the next request."""

    def __init__(self, wrapper: Any) -> None:
        super().__init__(wrapper.connection)
        self._wrapper = wrapper

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        self._wrapper.validate_no_broken_transaction()
        with self._wrapper.wrap_database_errors, super().transaction():
            yield


def _of_django(connection: Any) -> _Django:
    connection.ensure_connection()
    if "psycopg.Connection" not in _names(type(connection.connection)):
        msg = "append takes Django's connection to PostgreSQL by psycopg 3"
        raise TypeError(msg)
    return _Django(connection)


_ASYNCPG = asyncpg.Connection, asyncpg.pool.PoolConnectionProxy
_DRIVERS = "asyncpg", "psycopg", "psycopg_async"
_MADE_OF: Mapping[str, Callable[[Any], AsyncToolkit | SyncToolkit]] = {
    "psycopg.Connection": _Psycopg,
    "psycopg.AsyncConnection": _AsyncPsycopg,
    "sqlalchemy.Connection": lambda connection: _Sqlalchemy(lambda: connection),
    "sqlalchemy.Session": lambda session: _Sqlalchemy(session.connection),
    "sqlalchemy.scoped_session": lambda session: _Sqlalchemy(session.connection),
    "sqlalchemy.AsyncConnection": lambda connection: _AsyncSqlalchemy(partial(_itself, connection)),
    "sqlalchemy.AsyncSession": lambda session: _AsyncSqlalchemy(session.connection),
    "sqlalchemy.async_scoped_session": lambda session: _AsyncSqlalchemy(session.connection),
    "django.BaseDatabaseWrapper": _of_django,
    "django.ConnectionProxy": _of_django,
}
"""`library.Class` → how to append on one of these, or of a class that inherits from it."""
