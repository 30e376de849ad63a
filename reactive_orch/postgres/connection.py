"""A connection that can be inside a batch: what is put off to the batch's end is kept on it."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import asyncpg

if TYPE_CHECKING:
    _Connection = asyncpg.Connection[asyncpg.Record]
else:
    _Connection = asyncpg.Connection  # generic in its stubs only


@dataclass(slots=True)
class BatchMarks:
    """What is known of the batch that a connection is in."""

    put_off: list[Any] | None = None
    """Appends of the handlers; None outside a batch."""
    changed: bool = False
    """A handler has changed what asyncpg itself keeps of this connection: no statement takes that back."""
    incarnation: int = 0
    """Of the database, when this connection was made."""

    def take_put_off(self) -> list[Any]:
        """Return what was put off, and put nothing off any more."""
        taken, self.put_off = self.put_off or [], None
        return taken


def _changing(name: str) -> Any:
    """Return a method of asyncpg's that is noted when a handler calls it."""
    original = getattr(asyncpg.Connection, name)

    @functools.wraps(original)
    def changing(self: BatchConnection, *args: Any, **kwargs: Any) -> Any:
        self.marks.changed = self.marks.changed or self.marks.put_off is not None
        return original(self, *args, **kwargs)

    return changing


class BatchConnection(_Connection):
    """A connection that can be inside a batch."""

    set_type_codec = _changing("set_type_codec")
    reset_type_codec = _changing("reset_type_codec")
    set_builtin_type_codec = _changing("set_builtin_type_codec")
    add_query_logger = _changing("add_query_logger")
    add_termination_listener = _changing("add_termination_listener")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.marks = BatchMarks()

    def nest(self) -> None:
        """Make savepoints of whatever asyncpg is asked for as a transaction: BEGIN was said without it."""
        self._top_xact = self.transaction()

    def unnest(self) -> None:
        """Let asyncpg begin transactions again."""
        self._top_xact = None  # type: ignore[assignment]  # as asyncpg does; its stubs leave it out

    async def execute(self, query: str, *args: Any, timeout: float | None = None) -> str:  # noqa: ASYNC109 - asyncpg's own
        """Execute as asyncpg does; refuse at once to go on when a handler has ended its transaction."""
        tag = await super().execute(query, *args, timeout=timeout)
        if self.marks.put_off is not None and not self.is_in_transaction():
            # At once: what a handler wrote after its ROLLBACK would be committed statement by statement.
            msg = "a handler may not end the transaction it is given"
            raise asyncpg.InterfaceError(msg)
        return tag
