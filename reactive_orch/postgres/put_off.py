"""Appends of handlers, put off to the end of their batch: written at once they would hold back every reader until then.

Which of them a savepoint has taken back the database says: it counts them in a setting that falls back with savepoints.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, cast

from reactive_orch.postgres import log
from reactive_orch.postgres.database import load_statements

if TYPE_CHECKING:
    from reactive_orch.model import Expected
    from reactive_orch.postgres.connection import BatchConnection
    from reactive_orch.postgres.database import AnyConnection

_SQL = load_statements(Path(__file__).with_suffix(".sql"))


async def put_off(connection: AnyConnection, columns: log.Columns, expected: int | Expected) -> bool:
    """Keep an append for the end of the batch that this connection is in; False if it is in none."""
    marks = getattr(connection, "marks", None)
    if marks is None or marks.put_off is None:
        return False
    kept: int = await connection.fetchval(_SQL.keep)
    del marks.put_off[kept - 1 :]
    marks.put_off.append((columns, expected))
    return True


async def write(connection: AnyConnection) -> None:
    """Write what was put off and not taken back; nothing is put off any more."""
    put_off = cast("BatchConnection", connection).marks.take_put_off()
    if put_off:
        for columns, expected in put_off[: await connection.fetchval(_SQL.kept)]:
            await log.append_columns(connection, columns, expected)
