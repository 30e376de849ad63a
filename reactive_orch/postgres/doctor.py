"""What will not work on a database: the facts, read on connections made as a worker's are, without changing anything.

Guarantees: it looks at each host of the address, through a pooler too, and with few rights: what this user may not know
is None. No statement takes longer than a few seconds, whatever the log holds. Decides nothing: `core.findings` does.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import anyio
import asyncpg

from reactive_orch.config import CONNECTIONS_MIN, Config, shown
from reactive_orch.errors import ConfigError, ReactiveOrchError, Unavailable, UnsafeLog
from reactive_orch.model import OWN_LOG, Holder
from reactive_orch.model.findings import (
    CheckpointsSeen,
    CollationSeen,
    Facts,
    HostSeen,
    IndexSeen,
    LimitSeen,
    LogEnd,
    OpenSeen,
    PowersSeen,
    Right,
    SchemaSeen,
    ServerSeen,
    SessionSeen,
    SilencedSeen,
    SlotSeen,
    TriggerSeen,
)
from reactive_orch.postgres import migrations, overview
from reactive_orch.postgres.connecting import CONNECT_TIMEOUT_S, each_host
from reactive_orch.postgres.database import STATEMENT_TIMEOUT_S, batch_settings
from reactive_orch.postgres.faults import Kind, classify, one_line, translated
from reactive_orch.postgres.grants import wanted
from reactive_orch.postgres.statements import load_statements

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from reactive_orch.model.overview import Seen

    Connection = asyncpg.Connection[asyncpg.Record]

T = TypeVar("T")

CHANNEL = "reactive_orch_doctor"
HEARD_WITHIN_S = 2.0
"""A notification that has not come by then does not come."""

CARRIED = (
    "client_connection_check_interval",
    "default_transaction_isolation",
    "idle_in_transaction_session_timeout",
    "idle_session_timeout",
    "jit",
)
"""Settings that every worker asks for when it connects, and that show whether they have reached the server."""

_DEFAULTS = Config(database_url="")

_SQL = load_statements(Path(__file__).with_suffix(".sql"))


@dataclass(slots=True)
class _Host:
    """One host, as far as it has answered."""

    url: str
    settings: dict[str, str]
    connection: Connection | None = None
    refuses: str | None = None
    error: Exception | None = None
    server: ServerSeen | None = None
    started: str = ""
    pooled: bool = False

    def seen(self) -> HostSeen:
        """Return what is to be told of it."""
        if self.server is None:
            return HostSeen(url=shown(self.url), state="silent", why=_why(self.error))
        state: Literal["standby", "primary"] = "standby" if self.server.standby else "primary"
        return HostSeen(url=shown(self.url), state=state, server=self.started)


def _why(error: Exception | None) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer within {CONNECT_TIMEOUT_S:g} s"
    return one_line(error) if error else ""


@dataclass(slots=True)
class _Look:
    """One look, in one transaction: behind a pooler, then, all of it is in one session."""

    connection: Connection
    unknown: list[str] = field(default_factory=list)

    async def known(self, what: str, ask: Callable[[], Awaitable[T]]) -> T | None:
        """Return what is asked for; None, and a word for what is not known, if the server does not say it."""
        try:
            async with self.connection.transaction():
                return await ask()
        except (ReactiveOrchError, asyncpg.PostgresError) as error:
            if isinstance(error, UnsafeLog) or _is_lost(error):
                raise
            self.unknown.append(what)
            return None

    async def row(self, what: str, kind: Callable[..., T], statement: str, *arguments: object) -> T | None:
        """Return a row as a value of this kind."""

        async def ask() -> T | None:
            row = await self.connection.fetchrow(statement, *arguments)
            return None if row is None else kind(**dict(row))

        return await self.known(what, ask)

    async def rows(self, what: str, kind: Callable[..., T], statement: str, *arguments: object) -> list[T] | None:
        """Return all rows as values of this kind."""

        async def ask() -> list[T]:
            return [kind(**dict(row)) for row in await self.connection.fetch(statement, *arguments)]

        return await self.known(what, ask)

    async def value(self, what: str, statement: str) -> Any:
        """Return the one value of a statement."""
        return await self.known(what, lambda: self.connection.fetchval(statement))


def _is_lost(error: Exception) -> bool:
    cause = error.__cause__ if isinstance(error, ReactiveOrchError) and error.__cause__ else error
    return classify(cause) is Kind.LOST


async def examine(url: str, replica_set: str | None = None) -> Facts:
    """Return the facts about a database, and about all replica sets or about one.

    Raises Unavailable when no host can be reached, ConfigError for an address that cannot be used.
    """
    async with contextlib.AsyncExitStack() as stack:
        hosts = await _ask_hosts(url, stack)
        answering = [host for host in hosts if host.server is not None]
        if not answering:
            _raise_unreachable(hosts)
        best = min(answering, key=lambda host: host.server is None or host.server.standby)
        return await _facts(best, hosts, replica_set)


# --------------------------------------------------------------------------------------------------------- the hosts


async def _ask_hosts(url: str, stack: contextlib.AsyncExitStack) -> list[_Host]:
    settings = batch_settings(_DEFAULTS.handler_timeout_s)
    name = f"reactive_orch:doctor:{socket.gethostname().split('.')[0][:20]}:{os.getpid()}"
    hosts = [_Host(each, settings | {"application_name": name}) for each in each_host(url)]
    async with anyio.create_task_group() as tasks:
        for host in hosts:
            tasks.start_soon(_ask, host)
    for host in hosts:
        if host.connection is not None:
            stack.push_async_callback(_close, host.connection)
    return hosts


async def _ask(host: _Host) -> None:
    try:
        host.connection = await _connected(host)
        async with host.connection.transaction(readonly=True):
            await host.connection.execute(_SQL.bound)
            await _identify(host, host.connection)
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError) as error:
        host.error = error


async def _connected(host: _Host) -> Connection:
    """Connect as a worker does; with no settings where a pooler refuses these."""
    try:
        return await _connect(host.url, host.settings)
    except asyncpg.ProtocolViolationError as error:
        host.refuses = one_line(error)
        return await _connect(host.url, {})


async def _connect(url: str, settings: dict[str, str]) -> Connection:
    # Without a cache statements have no names, which a pooler would keep for another session.
    return await asyncpg.connect(
        url,
        timeout=CONNECT_TIMEOUT_S,
        command_timeout=STATEMENT_TIMEOUT_S,
        statement_cache_size=0,
        server_settings=settings,
    )


async def _identify(host: _Host, connection: Connection) -> None:
    began = time.time()
    row = await connection.fetchrow(_SQL.server)
    ended = time.time()
    assert row is not None, "it returns one row"
    fields = dict(row)
    # A server tells which process it is when it is connected to; a pooler makes that up.
    host.pooled = fields.pop("pid") != connection.get_server_pid()
    host.started = fields.pop("started")
    ahead_s = _ahead_s(fields.pop("clock"), began, ended)
    host.server = ServerSeen(**fields, ahead_s=ahead_s)


def _ahead_s(clock: float, began: float, ended: float) -> float:
    """Return by how much a clock is ahead that was read between two moments of ours; 0 if it may be neither."""
    return min(clock - began, 0.0) + max(clock - ended, 0.0)


def _raise_unreachable(hosts: list[_Host]) -> None:
    if len(hosts) > 1:
        msg = "; ".join(f"{each.why} ({each.url})" for each in (host.seen() for host in hosts))
        raise Unavailable(msg)
    (host,) = hosts
    assert host.error is not None, "a host that has not answered has failed"
    if isinstance(host.error, OSError):
        msg = f"{_why(host.error)} ({shown(host.url)})"
        raise Unavailable(msg) from host.error
    with translated():
        raise host.error


async def _close(connection: Connection) -> None:
    with anyio.move_on_after(2, shield=True), contextlib.suppress(OSError, asyncpg.InterfaceError):
        await connection.close(timeout=1)
    if not connection.is_closed():
        connection.terminate()


# ------------------------------------------------------------------------------------------------------- the session


async def _session(host: _Host, connection: Connection, server: ServerSeen) -> SessionSeen:
    hears, locks = None, None
    if not server.standby:
        with contextlib.suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError):  # no connection left, perhaps
            other = await _connect(host.url, {} if host.refuses else host.settings)
            try:
                locks = await _locks(connection, other)
                hears = await _hears(connection, other)
            finally:
                await _close(other)
    drops = [] if host.refuses else await _dropped(connection)
    return SessionSeen(pooled=host.pooled, refuses=host.refuses, drops=drops, hears=hears, locks=locks)


async def _dropped(connection: Connection) -> list[str]:
    async with connection.transaction(readonly=True):
        await connection.execute(_SQL.bound)
        return [row[0] for row in await connection.fetch(_SQL.dropped, CARRIED)]


async def _locks(connection: Connection, other: Connection) -> bool:
    """Tell whether a lock outlives its transaction, and keeps another session out."""
    number = secrets.randbits(62)
    held = await _told(connection, _SQL.lock, number)
    kept_out = not await _told(other, _SQL.lock, number)
    given_back = await _told(connection, _SQL.unlock, number)
    if not kept_out:
        await _told(other, _SQL.unlock, number)
    return bool(held and kept_out and given_back)


async def _told(connection: Connection, statement: str, *arguments: object) -> Any:
    async with connection.transaction():
        return await connection.fetchval(statement, *arguments)


async def _hears(connection: Connection, other: Connection) -> bool:
    """Tell whether one session hears what another one notifies."""
    token, heard = secrets.token_hex(8), anyio.Event()

    def hear(_connection: object, _pid: int, _channel: str, payload: object) -> None:
        if payload == token:
            heard.set()

    await connection.add_listener(CHANNEL, hear)
    try:
        await _told(other, _SQL.notify, CHANNEL, token)
        with anyio.move_on_after(HEARD_WITHIN_S):
            await heard.wait()
    finally:
        await connection.remove_listener(CHANNEL, hear)
    return heard.is_set()


# -------------------------------------------------------------------------------------------------------- the facts


async def _facts(host: _Host, hosts: list[_Host], replica_set: str | None) -> Facts:
    connection, server = host.connection, host.server
    assert connection is not None, "it has answered"
    assert server is not None, "it has answered"
    with translated():
        session = await _session(host, connection, server)
        async with connection.transaction(readonly=True):
            await connection.execute(_SQL.bound)
            look = _Look(connection)
            facts = {**await _of_server(look), **await _of_schema(look, replica_set)}
    return Facts(
        hosts=[each.seen() for each in hosts],
        session=session,
        server=server,
        per_process=_DEFAULTS.connections_max,
        per_process_least=CONNECTIONS_MIN,
        handler_timeout_s=_DEFAULTS.handler_timeout_s,
        unknown=look.unknown,
        **facts,
    )


async def _of_server(look: _Look) -> dict[str, Any]:
    limits: list[dict[str, Any]] | None = await look.rows("the server's time-outs", dict, _SQL.limits)
    return {
        "collation": await look.row("the collation's version", CollationSeen, _SQL.collation),
        "limits_ms": None if limits is None else {each["name"]: each["ms"] for each in limits},
        "silenced": await look.rows("whether triggers fire", SilencedSeen, _SQL.silenced),
        "powers": await look.row("what this user may do with sessions", PowersSeen, _SQL.powers),
        "open": await look.rows("open transactions", _open, _SQL.open),
        "slots": await look.rows("replication slots", SlotSeen, _SQL.slots),
        "queue": await look.value("the queue of notifications", _SQL.queue),
        "connections": await look.rows("the limits of connections", LimitSeen, _SQL.connections),
    }


def _open(*, here: bool, keeps_rows: bool, **holder: Any) -> OpenSeen:
    return OpenSeen(holder=Holder(**holder), here=here, keeps_rows=keeps_rows)


async def _of_schema(look: _Look, replica_set: str | None) -> dict[str, Any]:
    schema = await _schema(look)
    if schema is not None and schema.complaint is not None:
        nothing = ("rights", "bell", "indexes", "triggers", "guarded", "checkpoints", "end", "seen", "refusal")
        return {"schema": schema, **dict.fromkeys(nothing)}
    seen, refusal = await _seen(look, replica_set)
    return {
        "schema": schema,
        "rights": await look.rows("rights", Right, _SQL.rights, *zip(*wanted("worker"), strict=True)),
        "bell": await look.value("the bell", _SQL.bell),
        "indexes": await look.rows("indexes", IndexSeen, _SQL.indexes),
        "triggers": await look.rows("triggers", TriggerSeen, _SQL.triggers),
        "guarded": await look.known("row level security", lambda: _names(look.connection)),
        "checkpoints": await look.row("the table of the checkpoints", CheckpointsSeen, _SQL.checkpoints),
        "end": await look.known("the end of the log", lambda: _end(look.connection)),
        "seen": seen,
        "refusal": refusal,
    }


async def _names(connection: Connection) -> list[str]:
    return [row[0] for row in await connection.fetch(_SQL.guarded)]


async def _end(connection: Connection) -> LogEnd:
    row = await connection.fetchrow(_SQL.log_end, OWN_LOG)
    assert row is not None, "the log is recorded"
    return LogEnd(**dict(row))


async def _schema(look: _Look) -> SchemaSeen | None:
    if not await look.value("whether there is a schema", _SQL.is_there):
        missing = f"there is no schema reactive_orch in this database: this program needs step {migrations.NEWEST}"
        return SchemaSeen(complaint=missing, migrate_helps=True, step=0, newest=migrations.NEWEST)
    step = await look.value("the schema's step", _SQL.step)
    if step is None:
        return None
    complaint: str | None = None
    try:
        await migrations.check(look.connection)
    except ConfigError as error:
        complaint = str(error)
    newest = migrations.NEWEST
    return SchemaSeen(complaint=complaint, migrate_helps=step < newest, step=step, newest=newest)


async def _seen(look: _Look, replica_set: str | None) -> tuple[Seen | None, str | None]:
    try:
        return await look.known(
            "the log, and who works on it", lambda: overview.look(look.connection, replica_set)
        ), None
    except UnsafeLog as error:
        return None, str(error)
