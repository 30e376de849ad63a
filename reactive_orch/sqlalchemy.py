"""SQLAlchemy's sessions and connections in the transaction that a handler is given.

    async with session(tx) as s:        an AsyncSession
    async with connection(tx) as c:     an AsyncConnection

Both speak through `tx` itself. A transaction of theirs is a savepoint in the batch's: commit() releases it, rollback()
goes back to it, and neither ends more. The block's end commits what is left; an error, or a cancellation, takes back
what was not committed before it leaves the block.

`tx` stays as it is for whoever uses it beside: no type codec is set on it, JSON is decoded here, and statements are
prepared in asyncpg's own cache, which belongs to the connection. What SQLAlchemy keeps, its engine with the compiled
statements, is made once per process and version of the server.
"""

from __future__ import annotations

import contextlib
import functools
import json
import weakref
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import anyio

from reactive_orch.errors import ConfigError
from reactive_orch.postgres.connection import drop, in_cache, is_closed, is_connection, itself
from reactive_orch.postgres.pool import CLEANUP_TIMEOUT_S
from reactive_orch.postgres.statements import load_statements

try:
    from sqlalchemy import JSON, NullPool
    from sqlalchemy.dialects import postgresql, registry
    from sqlalchemy.dialects.postgresql.asyncpg import PGDialect_asyncpg, PGExecutionContext_asyncpg
    from sqlalchemy.exc import InvalidRequestError
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession, create_async_engine
    from sqlalchemy.types import NullType
except ModuleNotFoundError as missing:
    msg = f"SQLAlchemy is not installed: pip install 'reactive_orch[sqlalchemy]' ({missing.name} is missing)"
    raise ConfigError(msg) from missing

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sqlalchemy.ext.asyncio import AsyncEngine

    from reactive_orch.postgres.connection import AnyConnection

    _Made = TypeVar("_Made", AsyncConnection, AsyncSession)

__all__ = ["connection", "session"]

_SQL = load_statements(Path(__file__).with_suffix(".sql"))
_JSON_OIDS = (114, 3802)
"""Of json and jsonb."""
_HAS_BEGUN = "the transaction of a handler has begun: it can get no isolation level or other property now"


@contextlib.asynccontextmanager
async def session(tx: AnyConnection) -> AsyncIterator[AsyncSession]:
    """Open an AsyncSession in the handler's transaction for the block.

    At the end of the block what is new or changed is flushed and kept, as at that of `sessionmaker.begin()`; a block
    that raises has written nothing since its last commit(). Objects can be used after a commit: they do not expire.

    Raises TypeError for anything but a connection of asyncpg, ValueError for one that is closed or in no transaction.
    """
    async with connection(tx) as bound, _ending(AsyncSession(bound, expire_on_commit=False)) as made:
        yield made


@contextlib.asynccontextmanager
async def connection(tx: AnyConnection) -> AsyncIterator[AsyncConnection]:
    """Open an AsyncConnection in the handler's transaction for the block.

    What is not committed at the end of the block is committed there; a block that raises has written nothing since its
    last commit(). A session of one's own class may be bound to it.

    Raises TypeError for anything but a connection of asyncpg, ValueError for one that is closed or in no transaction.
    """
    _demand_transaction(tx)
    lent = _Lent(tx)
    try:
        async with _ending(await _connected(lent)) as made:
            yield made
    finally:
        if lent.savepoint is not None:
            await _take_back(lent)


def _demand_transaction(tx: Any) -> None:
    if not is_connection(tx):
        msg = f"session() and connection() take the tx of an async handler, a connection of asyncpg, not {_named(tx)}"
        raise TypeError(msg)
    if is_closed(tx) or not tx.is_in_transaction():
        state = "closed, or was given back" if is_closed(tx) else "in no transaction"
        msg = f"session() and connection() take the tx of an async handler while it runs: this connection is {state}"
        raise ValueError(msg)


def _named(given: object) -> str:
    kind = type(given)
    return f"{kind.__module__.partition('.')[0]}'s {kind.__qualname__}"


@contextlib.asynccontextmanager
async def _ending(made: _Made) -> AsyncIterator[_Made]:
    """Commit at the end of the block, and close; what is not committed then is rolled back by that."""
    try:
        yield made
        if made.in_transaction():
            await made.commit()
    finally:
        with anyio.move_on_after(CLEANUP_TIMEOUT_S, shield=True):
            await made.close()


async def _take_back(lent: _Lent) -> None:
    """Go back to the savepoint of a block that was cut off: SQLAlchemy has given up its connection then.

    A transaction in which that fails must not go on.
    """
    assert lent.savepoint is not None, "whoever calls has looked"
    try:
        with anyio.fail_after(CLEANUP_TIMEOUT_S, shield=True):
            await lent.savepoint.rollback()
    except BaseException as error:
        drop(lent.tx)
        if not isinstance(error, Exception):
            raise


class _Lent:
    """A handler's connection as the dialect uses it: it neither closes nor changes it."""

    def __init__(self, tx: AnyConnection) -> None:
        self.tx = tx
        self.savepoint: _Savepoint | None = None
        """The one that is open."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self.tx, name)

    def is_closed(self) -> bool:
        return is_closed(self.tx)

    def transaction(self, **options: Any) -> _Savepoint:
        if any(options.values()):
            raise InvalidRequestError(_HAS_BEGUN)
        return _Savepoint(self)

    async def prepare(self, query: str, *, name: str | None = None) -> Any:  # noqa: ARG002 - as the dialect calls it
        return await in_cache(self.tx, query)

    async def close(self, **_: Any) -> None:
        """Leave the connection open: it is the handler's."""

    def terminate(self) -> None:
        """Leave the connection open: it is the handler's."""


_open: weakref.WeakKeyDictionary[object, list[object]] = weakref.WeakKeyDictionary()
"""Connection → a mark of each savepoint that is open on it, the last one last. They have one name."""


class _Savepoint:
    """A transaction of the dialect's, noted while it is open."""

    def __init__(self, lent: _Lent) -> None:
        self._lent = lent
        self._mark = object()
        self._open = _open.setdefault(itself(lent.tx), [])

    async def start(self) -> None:
        await self._lent.tx.execute(_SQL.set_savepoint)
        self._open.append(self._mark)
        self._lent.savepoint = self

    async def commit(self) -> None:
        if self._mark not in self._open[-1:]:
            msg = (
                "sessions and connections on one tx are nested: one that was opened earlier ends its transaction when "
                "those of later ones have ended, and takes them back with its own"
            )
            raise InvalidRequestError(msg)
        await self._lent.tx.execute(_SQL.release)
        self._open.pop()
        self._lent.savepoint = None

    async def rollback(self) -> None:
        """Take back what was done since, by later ones too. Where the handler has ended its transaction nothing is."""
        while self._mark in self._open:
            if self._lent.tx.is_in_transaction():
                await self._lent.tx.execute(_SQL.take_back)
            self._open.pop()
        self._lent.savepoint = None


_lent: ContextVar[_Lent | None] = ContextVar("reactive_orch_lent", default=None)
"""What the engine is to connect to."""


async def _connected(lent: _Lent) -> AsyncConnection:
    engine = _engine(lent.tx.get_server_version())
    token = _lent.set(lent)
    try:
        return await engine.connect()
    finally:
        _lent.reset(token)


@functools.cache
def _engine(_version: object) -> AsyncEngine:
    """Return the one engine for servers of a version, of which the dialect keeps what it needs to know."""
    registry.register("postgresql.reactive_orch", __name__, "_Dialect")
    return create_async_engine("postgresql+reactive_orch://", async_creator=_take, poolclass=NullPool)


async def _take() -> _Lent:
    lent = _lent.get()
    if lent is None:
        msg = "a statement of this session was cut off, by a time-out perhaps: leave its block, and open another one"
        raise InvalidRequestError(msg)
    return lent


class _Context(PGExecutionContext_asyncpg):
    def get_result_processor(self, type_: Any, colname: str, coltype: Any) -> Any:
        """Decode JSON of textual statements too, as the dialect's codecs would."""
        if coltype in _JSON_OIDS and isinstance(type_, NullType):
            return _decoded
        return super().get_result_processor(type_, colname, coltype)


def _decoded(value: str | None) -> Any:
    return None if value is None else json.loads(value)


class _Dialect(PGDialect_asyncpg):
    """SQLAlchemy's own for asyncpg, without the codecs that it sets on a connection: others use this one, too."""

    supports_statement_cache = True
    supports_native_json_deserialization = False  # of 2.1; before, it was the types' own
    colspecs = {**PGDialect_asyncpg.colspecs, JSON: postgresql.JSON, postgresql.JSONB: postgresql.JSONB}  # noqa: RUF012
    execution_ctx_cls: Any = _Context

    async def setup_asyncpg_json_codec(self, conn: Any) -> None:
        """Set none."""

    async def setup_asyncpg_jsonb_codec(self, conn: Any) -> None:
        """Set none."""

    def set_isolation_level(self, dbapi_connection: Any, level: Any) -> None:  # noqa: ARG002 - as SQLAlchemy calls it
        """Refuse any, AUTOCOMMIT too: what a block has done could not be taken back then."""
        raise InvalidRequestError(_HAS_BEGUN)

    def get_driver_connection(self, connection: Any) -> Any:
        """Return the handler's connection: whoever asks for it finds the batch."""
        lent: _Lent = super().get_driver_connection(connection)  # type: ignore[no-untyped-call]  # as SQLAlchemy has it
        return lent.tx
