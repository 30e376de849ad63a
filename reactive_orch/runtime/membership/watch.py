"""The watch: who this member's successor in the ring is, and the news of its death (protocol 5.8).

It waits for the successor's lock on a connection of its own, since a session that waits in a query hears no
notification and can send no heartbeat. A freed lock is a hint to look, nothing more: the look decides. Alone in its
replica set a member watches nobody and has no such connection.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio

from reactive_orch.errors import Superseded, Unavailable
from reactive_orch.model.reports import ConnectionLost, Interrupted
from reactive_orch.postgres import membership
from reactive_orch.runtime.backoff import Backoff
from reactive_orch.runtime.wakeup import Wakeup

if TYPE_CHECKING:
    from collections.abc import Callable

    import asyncpg

    from reactive_orch.model import MemberId
    from reactive_orch.model.reports import Emit
    from reactive_orch.postgres.database import Database


class Watch:
    """One member's watch over its successor."""

    def __init__(self, replica_set: str, look: Callable[[], None], emit: Emit) -> None:
        """Watch nobody yet; `look` is called when the successor's lock is free."""
        self._replica_set = replica_set
        self._look = look
        self._emit = emit
        self._successor: MemberId | None = None
        self._changed = Wakeup()
        self._slice: anyio.CancelScope | None = None

    def set(self, successor: MemberId | None) -> None:
        """Watch this member from now on, None for nobody."""
        if successor != self._successor:
            self._successor = successor
            self._changed.set()
            if self._slice is not None:
                self._slice.cancel()

    async def run(self, database: Database) -> None:
        """Watch for ever."""
        backoff = Backoff(0.05, 5.0)
        while True:
            while self._successor is None:
                await self._changed.wait()
            try:
                connection = await database.connect("watch")
            except Unavailable as error:
                self._emit(Interrupted("watch", error, self._replica_set))
                await database.admission.pause(backoff.next_s())
                continue
            try:
                await self._watch(connection, backoff)
            except (Unavailable, Superseded) as error:
                self._emit(Interrupted("watch", error, self._replica_set))
                database.give_up(connection, error)
                self._emit(ConnectionLost("watch"))
                await database.admission.pause(backoff.next_s())
            finally:
                database.put_away(connection)

    async def _watch(self, connection: asyncpg.Connection[asyncpg.Record], backoff: Backoff) -> None:
        # A free lock may belong to a member that only lost a connection: it is looked at again, ever less often.
        pause = Backoff(0.005, 0.2)
        while self._successor is not None:
            successor, free = self._successor, False
            with anyio.CancelScope() as self._slice:
                free = await membership.await_death(connection, successor)
                backoff.reset()
            if not free or successor != self._successor:
                pause.reset()
                continue
            self._look()
            await self._changed.wait(pause.next_s())
