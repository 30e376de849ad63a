"""One look at how all of it stands: a few statements, each over a few rows, whatever the log holds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from reactive_orch.model import MemberId, Subscription
from reactive_orch.model.account import account_of
from reactive_orch.model.overview import (
    ConnectionsSeen,
    GenerationSeen,
    LogSeen,
    ProjectionSeen,
    RestSeen,
    Seen,
    WorkerSeen,
)
from reactive_orch.postgres import log, log_check
from reactive_orch.postgres.faults import translated
from reactive_orch.postgres.statements import load_statements

if TYPE_CHECKING:
    from reactive_orch.model import LogName
    from reactive_orch.postgres.connection import AnyConnection

_SQL = load_statements(Path(__file__).with_suffix(".sql"))


async def look(connection: AnyConnection, replica_set: str | None = None, *, back: int = 0) -> Seen:
    """Look at all logs, and at all replica sets or at one. Nothing is seen of one that is not recorded.

    `back`: so many generations before the one that a replica set has now are seen, too.
    """
    with translated():
        async with connection.transaction(readonly=True):  # of one clock
            return await _seen(connection, replica_set, back)


async def _seen(connection: AnyConnection, replica_set: str | None, back: int) -> Seen:
    logs = [await _log(connection, each.name) for each in await log_check.logs(connection)]
    with translated():
        generations, workers, projections = [
            list(map(dict, await connection.fetch(statement, *of)))
            for statement, of in (
                (_SQL.generations, [replica_set, back + 1]),
                (_SQL.workers, []),  # of all: each tells how far the log may be read
                (_SQL.projections, [replica_set]),
            )
        ]
        found = _generations(generations)
        return Seen(
            at=await connection.fetchval(_SQL.now),
            logs=logs,
            generations={name: next(iter(newest_first), None) for name, newest_first in found.items()},
            before={name: newest_first[1:] for name, newest_first in found.items()},
            workers=[_worker(row) for row in workers],
            projections=[_projection(row) for row in projections],
            connections=await _connections(connection),
        )


async def _connections(connection: AnyConnection) -> list[ConnectionsSeen]:
    return [ConnectionsSeen(**row) for row in await connection.fetch(_SQL.connections)]


async def _log(connection: AnyConnection, name: LogName) -> LogSeen:
    state, refusal = await log_check.examine(connection, name)
    with translated():
        needed = await connection.fetchrow(_SQL.needed, name)
    assert needed is not None, "it always has a row"
    return LogSeen(
        name=state.log.name,
        partitions=state.log.partitions,
        head=state.head,
        holders=await log.holders(connection, name),
        refusal=refusal,
        **needed,
    )


def _generations(rows: list[dict[str, Any]]) -> dict[str, list[GenerationSeen]]:
    """Return replica set → its generations, in the order of the rows; none before the first."""
    found: dict[str, list[GenerationSeen]] = {}
    for row in rows:
        of = found.setdefault(row.pop("name"), [])
        if row["number"] is not None:
            of.append(GenerationSeen(**row))
    return found


def _worker(row: dict[str, Any]) -> WorkerSeen:
    return WorkerSeen(**row | {"id": MemberId(row["id"]), "account": account_of(row["account"])})


def _projection(row: dict[str, Any]) -> ProjectionSeen:
    fields = dict(row)
    rest = RestSeen(
        state=fields.pop("state"),
        reason=fields.pop("state_reason"),
        by=fields.pop("state_by"),
        since=fields.pop("state_since"),
        age_s=fields.pop("state_s"),
        tried_at=fields.pop("resumes_at"),
    )
    subscription = Subscription(fields.pop("name"), fields.pop("log"))
    return ProjectionSeen(**fields, subscription=subscription, rest=None if row["state"] == "running" else rest)
