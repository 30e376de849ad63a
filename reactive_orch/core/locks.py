"""What is said of tables of ours that somebody has locked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reactive_orch.core.remedies import ending

if TYPE_CHECKING:
    from collections.abc import Sequence

    from reactive_orch.model import TableLock

NOBODY_KNOWN = (
    "a statement has waited too long for a lock, and nobody has locked a table of reactive_orch any more (a row, "
    "perhaps): try again"
)


def locked(locks: Sequence[TableLock]) -> str:
    """Return in a line which table is locked, by whom, and the command that ends that: of the worst of these."""
    if not locks:
        return NOBODY_KNOWN
    worst = locks[0]
    tables = {each.table for each in locks} - {worst.table}
    more = f" ({len(tables)} more are locked)" if tables else ""
    command = ending(worst.holder.pid, worst.holder.prepared)
    return f"{worst.table} is locked by {worst.holder}{more}; to end it: {command}"


def who(locks: Sequence[TableLock]) -> str:
    """Return of the same what does not change from one look to the next."""
    return f"{locks[0].table} {locks[0].holder.who}" if locks else ""
