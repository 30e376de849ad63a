"""Appends of handlers, put off to the end of their batch, or they would hold back every reader (protocol 3.9).

A rollback to a savepoint takes those back that came after it. Which ones, the database tells: it counts the appends in
a setting that such a rollback sets back, too.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, cast

from reactive_orch.postgres import appending
from reactive_orch.postgres.statements import load_statements
from reactive_orch.postgres.steps import Statement

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from reactive_orch.model import Expected
    from reactive_orch.postgres.connection import AnyConnection, BatchConnection
    from reactive_orch.postgres.steps import Rows

_SQL = load_statements(Path(__file__).with_suffix(".sql"))


class PutOff(NamedTuple):
    """An append that is put off."""

    number: int
    """As the database has counted it. One that was cancelled while it was counted is missing here."""
    columns: appending.Columns
    expected: int | Expected


async def put_off(
    connection: AnyConnection,
    columns: appending.Columns,
    expected: int | Expected,
    ask: Callable[[Statement], Awaitable[Rows]],
) -> bool:
    """Keep an append for the end of the batch that this connection is in; False if it is in none.

    `ask` sends statements as the handler's own toolkit does: that one may begin a savepoint only now.
    """
    marks = getattr(connection, "marks", None)
    if marks is None or marks.put_off is None:
        return False
    ((number,),) = await ask(Statement(_SQL.keep))
    while marks.put_off and marks.put_off[-1].number >= number:
        marks.put_off.pop()
    marks.put_off.append(PutOff(number, columns, expected))
    return True


async def write(connection: AnyConnection) -> None:
    """Write what was put off and not taken back; nothing is put off any more."""
    put_off: list[PutOff] = cast("BatchConnection", connection).marks.take_put_off()
    if put_off:
        kept: int = await connection.fetchval(_SQL.kept)
        for each in put_off:
            if each.number <= kept:
                await appending.append_columns(connection, each.columns, each.expected)
