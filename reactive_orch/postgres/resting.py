"""A connection of this process's own that rests now and then, and is lent meanwhile for a statement of somebody else.

Whoever looks every few seconds needs no connection of a pool for it, which would be kept open for that alone.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import anyio

from reactive_orch.errors import Exhausted, Superseded, Unavailable
from reactive_orch.postgres.faults import is_stale

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from reactive_orch.incarnation import Incarnation
    from reactive_orch.postgres.connection import BatchConnection


class Resting:
    """The connections that rest."""

    def __init__(self, give_up: Callable[[BatchConnection, Exception], None]) -> None:
        """Start without any; `give_up` is called with one that is of no use any more, and why."""
        self._give_up = give_up
        self._resting: dict[BatchConnection, anyio.Lock] = {}

    @contextlib.asynccontextmanager
    async def rests(self, connection: BatchConnection) -> AsyncIterator[None]:
        """Let others have a connection while its owner sleeps in the block, which ends when they have given it back."""
        lock = self._resting[connection] = anyio.Lock()
        try:
            yield
        finally:
            del self._resting[connection]
            if lock.statistics().locked:
                async with lock:
                    pass

    def free(self, incarnation: Incarnation) -> BatchConnection | None:
        """Return a connection of this incarnation that rests and that nobody has; `lent` must follow at once."""
        return next(
            (
                each
                for each, lock in self._resting.items()
                if each.marks.incarnation == incarnation and not each.is_closed() and not lock.statistics().locked
            ),
            None,
        )

    @contextlib.asynccontextmanager
    async def lent(self, connection: BatchConnection) -> AsyncIterator[BatchConnection]:
        """Use it in the block, for a short statement.

        Shielded: whoever is cancelled in the middle of a statement would leave its end to the owner.
        """
        async with self._resting[connection]:
            try:
                with anyio.CancelScope(shield=True):
                    yield connection
            except Exhausted:  # the server lacks something: nothing is lost
                raise
            except Superseded as error:
                if is_stale(error):
                    self._give_up(connection, error)
                raise
            except Unavailable as error:
                self._give_up(connection, error)
                raise
