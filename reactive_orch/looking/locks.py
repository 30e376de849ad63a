"""Who has locked what could not be read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reactive_orch.core import locks
from reactive_orch.errors import Locked, ReactiveOrchError
from reactive_orch.postgres import waits
from reactive_orch.postgres.faults import kept_waiting

if TYPE_CHECKING:
    from reactive_orch.model import TableLock
    from reactive_orch.postgres.connection import AnyConnection


async def explained(connection: AnyConnection, error: ReactiveOrchError) -> ReactiveOrchError:
    """Return an error, but one that names who has locked what, if that has kept its statement waiting for too long."""
    if not kept_waiting(error):
        return error
    found = await _found(connection)
    told = Locked(locks.locked(found), locks.who(found))
    told.__cause__ = error
    return told


async def _found(connection: AnyConnection) -> list[TableLock]:
    try:
        return await waits.table_locks(connection)
    except ReactiveOrchError:  # it has been lost meanwhile, or that may not be asked
        return []
