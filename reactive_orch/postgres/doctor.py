"""What will not work on a database: the facts, read on connections made as a worker's are, without changing anything.

Guarantees: it looks at each host of the address, through a pooler too, and with few rights: what this user may not know
is None. No statement takes longer than a few seconds, whatever the log holds. Decides nothing: `core.findings` does.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import asyncpg

from reactive_orch.config import CONNECTIONS_MIN, DEFAULTS
from reactive_orch.errors import ConfigError, ReactiveOrchError, UnsafeLog
from reactive_orch.model import OWN_LOG, Holder, TableLock
from reactive_orch.model.findings import (
    CheckpointsSeen,
    CollationSeen,
    Facts,
    IndexSeen,
    LimitSeen,
    LogEnd,
    OpenSeen,
    PowersSeen,
    Right,
    SchemaSeen,
    SilencedSeen,
    SlotSeen,
    TriggerSeen,
)
from reactive_orch.postgres import migrations, overview, waits
from reactive_orch.postgres.doctor_hosts import BOUND, Host, ask_hosts, raise_unreachable, session_of
from reactive_orch.postgres.faults import Kind, classify, is_late, translated
from reactive_orch.postgres.grants import wanted
from reactive_orch.postgres.statements import load_statements

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from reactive_orch.model.overview import Seen
    from reactive_orch.postgres.grants import Purpose

    Connection = asyncpg.Connection[asyncpg.Record]

T = TypeVar("T")

_SQL = load_statements(Path(__file__).with_suffix(".sql"))


@dataclass(slots=True)
class _Look:
    """One look, in one transaction: behind a pooler, then, all of it is in one session."""

    connection: Connection
    unknown: list[str] = field(default_factory=list)
    late: list[str] = field(default_factory=list)
    """What the server has not told in time."""
    locks: list[TableLock] | None = None
    """Who had locked our tables when it was late for the first time."""

    async def known(self, what: str, ask: Callable[[], Awaitable[T]]) -> T | None:
        """Return what is asked for; None, and a word for what is not known, if the server does not say it."""
        try:
            async with self.connection.transaction():
                return await ask()
        except (ReactiveOrchError, asyncpg.PostgresError) as error:
            if isinstance(error, UnsafeLog) or _is_lost(error):
                raise
            (self.late if is_late(error) else self.unknown).append(what)
        if self.late and self.locks is None:
            self.locks = []
            self.locks = await self.rows("locks", waits.table_lock, waits.TABLE_LOCKS) or []
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


async def examine(url: str, replica_set: str | None = None, purpose: Purpose = "worker") -> Facts:
    """Return the facts about a database, for a user of this purpose, and about all replica sets or about one.

    Raises Unavailable when no host can be reached, ConfigError for an address that cannot be used.
    """
    async with contextlib.AsyncExitStack() as stack:
        hosts = await ask_hosts(url, DEFAULTS.handler_timeout_s, stack)
        answering = [host for host in hosts if host.server is not None]
        if not answering:
            raise_unreachable(hosts)
        best = min(answering, key=lambda host: host.server is None or host.server.standby)
        return await _facts(best, hosts, replica_set, purpose)


async def _facts(host: Host, hosts: list[Host], replica_set: str | None, purpose: Purpose) -> Facts:
    connection, server = host.connection, host.server
    assert connection is not None, "it has answered"
    assert server is not None, "it has answered"
    with translated():
        session = await session_of(host, connection, server)
        async with connection.transaction(readonly=True):
            await connection.execute(BOUND)
            look = _Look(connection)
            facts = {**await _of_server(look), **await _of_schema(look, replica_set, purpose)}
    return Facts(
        hosts=[each.seen() for each in hosts],
        session=session,
        server=server,
        per_process=DEFAULTS.connections_max,
        per_process_least=CONNECTIONS_MIN,
        handler_timeout_s=DEFAULTS.handler_timeout_s,
        purpose=purpose,
        unknown=look.unknown,
        late=look.late,
        locks=look.locks or (),
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


async def _of_schema(look: _Look, replica_set: str | None, purpose: Purpose) -> dict[str, Any]:
    schema = await _schema(look)
    if schema is not None and schema.complaint is not None:
        nothing = ("rights", "bell", "indexes", "triggers", "guarded", "checkpoints", "end", "seen", "refusal")
        return {"schema": schema, **dict.fromkeys(nothing)}
    seen, refusal = await _seen(look, replica_set)
    return {
        "schema": schema,
        "rights": await look.rows("rights", Right, _SQL.rights, *zip(*wanted(purpose), strict=True)),
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
