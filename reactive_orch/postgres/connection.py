"""A connection that can be inside a batch: what is put off to the batch's end is kept on it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import asyncpg

if TYPE_CHECKING:
    _Connection = asyncpg.Connection[asyncpg.Record]
else:
    _Connection = asyncpg.Connection  # generic in its stubs only


@dataclass(slots=True)
class BatchMarks:
    """What is put off to the end of the batch that a connection is in."""

    put_off: list[Any] | None = None
    """Appends of the handlers; None outside a batch."""
    sealed_commit: str | None = None
    """What to send instead of the next COMMIT."""
    savepoints: dict[str, int] = field(default_factory=dict)
    """How much had been put off when a savepoint was set: what came after it goes when it is rolled back."""
    incarnation: int = 0
    """Of the database, when this connection was made."""

    def begin(self) -> None:
        """Put appends off from now on."""
        self.put_off, self.savepoints = [], {}

    def end(self) -> None:
        """Forget what was put off."""
        self.put_off = self.sealed_commit = None

    def take_put_off(self) -> list[Any]:
        """Return what was put off, and put nothing off any more."""
        taken, self.put_off = self.put_off or [], None
        return taken

    def note(self, query: str) -> None:
        """Follow a handler's savepoints, in the words of asyncpg's own nested transactions."""
        if self.put_off is None:
            return
        if query.startswith("SAVEPOINT "):
            self.savepoints[query.removeprefix("SAVEPOINT ")] = len(self.put_off)
        elif query.startswith("ROLLBACK TO "):
            del self.put_off[self.savepoints.get(query.removeprefix("ROLLBACK TO "), len(self.put_off)) :]


class BatchConnection(_Connection):
    """A connection that can be inside a batch."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.marks = BatchMarks()

    async def execute(self, query: str, *args: Any, timeout: float | None = None) -> str:  # noqa: ASYNC109 - asyncpg's own
        """Execute as asyncpg does; the COMMIT of a batch is sent together with the statement that seals it."""
        if self.marks.sealed_commit is not None and query == "COMMIT;":
            query, self.marks.sealed_commit = self.marks.sealed_commit, None
        self.marks.note(query)
        tag = await super().execute(query, *args, timeout=timeout)
        if self.marks.put_off is not None and not self.is_in_transaction():
            # At once: what a handler wrote after its ROLLBACK would be committed statement by statement.
            msg = "a handler may not end the transaction it is given"
            raise asyncpg.InterfaceError(msg)
        return tag
