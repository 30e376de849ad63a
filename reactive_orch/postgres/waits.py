"""For whom a connection waits."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from reactive_orch.model import Holder
from reactive_orch.postgres.faults import translated
from reactive_orch.postgres.statements import load_statements

if TYPE_CHECKING:
    from reactive_orch.postgres.connection import AnyConnection

_SQL = load_statements(Path(__file__).with_suffix(".sql"))


async def blockers(connection: AnyConnection, pid: int) -> list[Holder]:
    """Return who holds what the server process `pid` waits for, the oldest transaction first; nobody if it does not."""
    with translated():
        rows = await connection.fetch(_SQL.blockers, pid)
    return [Holder(**{**row, "pid": row["pid"] or None}) for row in rows]
