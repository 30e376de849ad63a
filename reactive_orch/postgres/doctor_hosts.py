"""The hosts of an address, each connected to as a worker would, and what such a connection is good for.

Guarantees: a host that does not answer, or a pooler that refuses what a worker asks for, is a fact and no error.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn

import anyio
import asyncpg

from reactive_orch.config import shown
from reactive_orch.errors import ConfigError, Unavailable
from reactive_orch.model.findings import HostSeen, ServerSeen, SessionSeen
from reactive_orch.postgres.connecting import CONNECT_TIMEOUT_S, each_host, why
from reactive_orch.postgres.database import STATEMENT_TIMEOUT_S, batch_settings
from reactive_orch.postgres.faults import one_line, translated
from reactive_orch.postgres.statements import load_statements

if TYPE_CHECKING:
    from collections.abc import Sequence

    Connection = asyncpg.Connection[asyncpg.Record]

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

_SQL = load_statements(Path(__file__).with_suffix(".sql"))

BOUND = _SQL.bound
"""For the begin of a transaction: none of its statements takes long, or meets operators of somebody else's."""


@dataclass(slots=True)
class Host:
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
            return HostSeen(url=shown(self.url), state="silent", why=why(self.error) if self.error else "")
        state: Literal["standby", "primary"] = "standby" if self.server.standby else "primary"
        return HostSeen(url=shown(self.url), state=state, server=self.started)


async def ask_hosts(url: str, handler_timeout_s: float, stack: contextlib.AsyncExitStack) -> list[Host]:
    """Connect to each host of an address at once, with a worker's settings; the stack closes what has been opened."""
    settings = batch_settings(handler_timeout_s)
    name = f"reactive_orch:doctor:{socket.gethostname().split('.')[0][:20]}:{os.getpid()}"
    hosts = [Host(each, settings | {"application_name": name}) for each in each_host(url)]
    async with anyio.create_task_group() as tasks:
        for host in hosts:
            tasks.start_soon(_ask, host)
    for host in hosts:
        if host.connection is not None:
            stack.push_async_callback(_close, host.connection)
    return hosts


async def _ask(host: Host) -> None:
    try:
        host.connection = await _connected(host)
        async with host.connection.transaction(readonly=True):
            await host.connection.execute(BOUND)
            await _identify(host, host.connection)
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError) as error:
        host.error = error


async def _connected(host: Host) -> Connection:
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


async def _identify(host: Host, connection: Connection) -> None:
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


def raise_unreachable(hosts: Sequence[Host]) -> NoReturn:
    """Raise why none of these hosts has answered: Unavailable, or ConfigError where waiting does not help."""
    if len(hosts) > 1:
        msg = "; ".join(f"{each.why} ({each.url})" for each in (host.seen() for host in hosts))
        raise Unavailable(msg)
    (host,) = hosts
    assert host.error is not None, "a host that has not answered has failed"
    if isinstance(host.error, OSError):
        msg = f"{why(host.error)} ({shown(host.url)})"
        raise Unavailable(msg) from host.error
    if host.connection is not None and "pooling mode" in str(host.error):  # PgBouncer's answer to BEGIN
        msg = (
            f"a pooler that lets nobody begin a transaction (statement mode) answers, {one_line(host.error)} "
            f"({shown(host.url)}): give the address of the server itself"
        )
        raise ConfigError(msg) from host.error
    with translated():
        raise host.error


async def _close(connection: Connection) -> None:
    with anyio.move_on_after(2, shield=True), contextlib.suppress(OSError, asyncpg.InterfaceError):
        await connection.close(timeout=1)
    if not connection.is_closed():
        connection.terminate()


async def session_of(host: Host, connection: Connection, server: ServerSeen) -> SessionSeen:
    """Try on two connections what a worker's session relies on: notifications, locks and settings."""
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
        await connection.execute(BOUND)
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
