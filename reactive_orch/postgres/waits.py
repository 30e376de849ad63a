"""For whom a connection waits."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from reactive_orch.model import Holder, TableLock
from reactive_orch.postgres.faults import translated
from reactive_orch.postgres.statements import load_statements

if TYPE_CHECKING:
    from reactive_orch.postgres.connection import AnyConnection

_SQL = load_statements(Path(__file__).with_suffix(".sql"))

TABLE_LOCKS = _SQL.table_locks


async def blockers(connection: AnyConnection, pid: int) -> list[Holder]:
    """Return who holds what the server process `pid` waits for, the oldest transaction first; nobody if it does not."""
    with translated():
        rows = await connection.fetch(_SQL.blockers, pid)
    return [Holder(**{**row, "pid": row["pid"] or None}) for row in rows]


async def table_locks(connection: AnyConnection) -> list[TableLock]:
    """Return the tables of ours that others may not read, or not write, and who is to blame; the worst first."""
    with translated():
        return [table_lock(**row) for row in await connection.fetch(TABLE_LOCKS)]


def table_lock(*, table: str, **holder: Any) -> TableLock:
    """Return what a row of it says."""
    return TableLock(table=table, holder=Holder(**holder))
