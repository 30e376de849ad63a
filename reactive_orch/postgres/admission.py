"""Which connections are of the present incarnation: each proves where it leads before it is used.

What came back after a loss may be another server, or an older state of the same one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from weakref import WeakSet

from reactive_orch.errors import Unavailable
from reactive_orch.incarnation import Incarnation
from reactive_orch.postgres.absence import Absence
from reactive_orch.postgres.connection import drop

if TYPE_CHECKING:
    from collections.abc import Callable

    from reactive_orch.incarnation import Server
    from reactive_orch.postgres.connection import BatchConnection


class Admission:
    """The incarnation of one process's connections to one database, and where they lead."""

    def __init__(self) -> None:
        """Begin with the first incarnation, without connections."""
        self.incarnation = Incarnation(0)
        self.on_lost: list[Callable[[], None]] = []
        self._absence = Absence()
        self._server: Server | None = None
        """Where this incarnation's connections lead. Before the first one: where those of the last incarnation led."""
        self._proven: Incarnation | None = None
        """The incarnation whose first connection has told where it leads."""
        self._connections: WeakSet[BatchConnection] = WeakSet()

    def lost(self) -> None:
        """Note that a connection was lost: from here on nothing remembered is valid, nor is any pooled connection."""
        self.incarnation = Incarnation(self.incarnation + 1)
        for forget in self.on_lost:
            forget()

    def back(self) -> None:
        """Note that the database is back after a loss: nobody needs to wait any more."""
        self._absence.over()

    async def pause(self, seconds: float) -> None:
        """Wait before the next attempt to get in: so long, or until the database is back."""
        await self._absence.pause(seconds)

    def admit(self, connection: BatchConnection, begun: Incarnation) -> None:
        """Let a new connection be one of its incarnation, once it has proven to lead where the others lead.

        `begun`: the incarnation in which it began to connect. The first one of an incarnation says where that is. If a
        later one leads elsewhere, the address was moved or the server restarted, unnoticed. That is a loss, and the
        earlier ones are ended. Raises Unavailable when the new one itself leads to the wrong server: an old primary, or
        another one than those of an incarnation that began meanwhile.
        """
        there, known = connection.marks.server, self._server
        connection.marks.incarnation = begun
        assert there is not None, "whoever opens a connection asks it"
        if known is not None and there.precedes(known):
            msg = f"an old primary has answered: of timeline {there.timeline}, after {known.timeline} was seen"
            raise Unavailable(msg)
        if begun != self.incarnation and there != known:
            msg = "the database was lost meanwhile"
            raise Unavailable(msg)
        if there != known:
            self._move_to(there)
            connection.marks.incarnation = self.incarnation
        if connection.marks.incarnation == self.incarnation:
            self._proven = self.incarnation
        self._connections.add(connection)

    def _move_to(self, server: Server) -> None:
        for other in list(self._connections):
            drop(other)
        if self._proven == self.incarnation:
            self.lost()
        self._server = server
