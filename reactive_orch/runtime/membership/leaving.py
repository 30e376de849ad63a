"""Leaving when the worker itself is no more: after a failure, a cancellation, an outage that outlasted it.

For the others it is a member until a generation says otherwise, and its process, which may live on with other workers,
holds its lock. To release it would make the others take the whole process for dead and end all its connections. So the
node sees it off: the member stays, locked and with heartbeats, until it has been removed, however long that takes.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import anyio

from reactive_orch.core import generation as core
from reactive_orch.errors import ConfigError, MissingRight, Superseded, Unavailable
from reactive_orch.model import Turn
from reactive_orch.model.reports import Looked
from reactive_orch.postgres import membership
from reactive_orch.runtime.backoff import Backoff
from reactive_orch.runtime.interruptions import passing_over
from reactive_orch.runtime.membership.change import write_generation
from reactive_orch.runtime.wakeup import Wakeup

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from reactive_orch.model import MemberId, Snapshot
    from reactive_orch.model.reports import Watchers
    from reactive_orch.postgres.connection import AnyConnection
    from reactive_orch.postgres.database import Database
    from reactive_orch.runtime.membership.session import Session

LEAVE_TIMEOUT_S = 3.0
"""Leaving in good order must not hang on a database that is away: it is finished when the database is back."""

LEAVE_ATTEMPTS = 10

_AWAY = (Unavailable, Superseded, ConfigError, MissingRight)


class Departures:
    """The members of a process whose workers have ended."""

    def __init__(self, database: Database, session: Session, watchers: Watchers) -> None:
        """Start with none."""
        self._database = database
        self._session = session
        self._watchers = watchers
        self.left: Callable[[BaseException | None], object] = lambda _: None
        """Called when one has been removed, or is to be; with the failure that ended its worker, if any."""
        self._due: dict[MemberId, str] = {}
        self._left_over = Wakeup()

    async def leave(self, replica_set: str, member: MemberId, failure: BaseException | None = None) -> None:
        """Remove a member at once if that is possible within a few seconds, else when the database is back."""
        self._due[member] = replica_set
        with anyio.move_on_after(LEAVE_TIMEOUT_S, shield=True), self._passing_over(replica_set):
            await self._see_off(member)
        if self._due:
            self._left_over.set()
        self.left(failure)

    async def run(self) -> None:
        """Finish what `leave` could not, for ever."""
        while True:
            await self._left_over.wait()
            backoff = Backoff(0.05, 5.0)
            while self._due:
                await self._database.admission.pause(backoff.next_s())
                for member, replica_set in list(self._due.items()):
                    with self._passing_over(replica_set):  # each by itself: a replica set may be locked by somebody
                        await self._see_off(member)

    def _passing_over(self, replica_set: str) -> AbstractContextManager[None]:
        return passing_over(self._watchers.emit, "leave", *_AWAY, of=(replica_set,))

    async def _see_off(self, member: MemberId) -> None:
        replica_set = self._due.get(member)
        if replica_set is None:  # `leave` has done it meanwhile
            return
        async with self._database.coordination() as connection:
            await self._remove(connection, replica_set, member)
        with self._passing_over(replica_set):  # a lost connection has given the lock back
            await self._session.unlock(member)
        self._due.pop(member, None)

    async def _remove(self, connection: AnyConnection, replica_set: str, member: MemberId) -> None:
        await membership.leave(connection, member, self._database.label)
        for _ in range(LEAVE_ATTEMPTS):
            turn = Turn(replica_set, member, "own", time.time_ns())
            snapshot = await membership.observe(connection, replica_set)
            if core.member_of(snapshot, member, self._database.label) is None or await self._write(
                connection, turn, snapshot
            ):
                return
        msg = "others write generation after generation"
        raise Superseded(msg)

    async def _write(self, connection: AnyConnection, turn: Turn, snapshot: Snapshot) -> bool:
        turn.observed_ns = time.time_ns()
        self._watchers.emit(Looked(turn))
        new = core.plan_change(snapshot, trust=False, watched_s=0.0)
        return new is not None and await write_generation(connection, turn, snapshot, new, self._watchers) is not None
