"""The settled end of a log, followed by one task per process for all lanes that read it (protocol 2.1, 6.3).

It looks when a reader waits and something rang, or a fallback time has passed. With the bell disarmed it looks by the
clock. While writers hold the frontier it looks every 1 to 20 ms. Everything it knows belongs to one incarnation of the
database: after any lost connection it checks the log again and begins a new frontier, at the greatest checkpoint.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import anyio

from reactive_orch.core.frontier import Frontier, Observation
from reactive_orch.errors import Exhausted, Superseded, Unavailable, UnsafeLog
from reactive_orch.model.reports import ConnectionLost, FollowerWoke
from reactive_orch.postgres import log, log_check
from reactive_orch.runtime.backoff import Backoff
from reactive_orch.runtime.interruptions import Interruptions
from reactive_orch.runtime.reading.hold_watch import HoldWatch
from reactive_orch.runtime.reading.log_rules import LogRules
from reactive_orch.runtime.reading.ringing import Ringing
from reactive_orch.runtime.reading.waiters import Waiters
from reactive_orch.runtime.wakeup import WORK, Wakeup

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from reactive_orch.incarnation import Incarnation
    from reactive_orch.model import Holder, Log, LogState, Position
    from reactive_orch.model.reports import Emit
    from reactive_orch.postgres.connection import BatchConnection
    from reactive_orch.postgres.database import Database

TAIL = "tail"
"""The connection on which a process looks at a log. While it lives, the process does: see the view `member_status`."""

LOOK_AGAIN_FIRST_S, LOOK_AGAIN_MOST_S = 0.001, 0.020


class LogFollower:
    """How far the log may be read."""

    def __init__(self, log: Log, database: Database, listening: Callable[[], bool], emit: Emit) -> None:
        """Prepare; `run` follows the log. `listening` tells whether notifications arrive."""
        self.log = log
        self.database = database
        self.wakeup = Wakeup()
        """Set by whatever says that there is something to see."""
        self.readers = 1
        """How many processes read this log, as far as known: the more, the less often each looks while nobody rings."""
        self.interruptions = Interruptions(emit)
        self._emit = emit
        self._waiters = Waiters()
        self.ringing = Ringing(log.name, self.wakeup, listening, emit)
        self._hold = HoldWatch(log.name, emit)
        self._rules = LogRules(log.name)
        self._frontier = Frontier()
        self._looked_at = 0.0
        """When the last finished look began; 0 if there was none in this incarnation."""

    @property
    def holders(self) -> Mapping[str, int]:
        """How many transactions the frontier waits for, by kind."""
        holders, prepared = self._frontier.holders, self._frontier.prepared
        return {"running": len(holders - prepared), "prepared": len(holders & prepared)}

    @property
    def who_holds(self) -> Sequence[Holder]:
        """Who held the frontier when that was last asked, the oldest first."""
        return self._hold.holders

    @property
    def held_s(self) -> float:
        """For how long writers have held the frontier, in seconds; 0 when it is free, or out of sight."""
        return 0.0 if self.settled is None else self._hold.held_s

    @property
    def settled(self) -> Position | None:
        """Every position up to here may be read; None while nothing is known of this incarnation."""
        return self.settled_in(self.database.incarnation)

    def settled_in(self, incarnation: Incarnation) -> Position | None:
        """Return the settled end in this incarnation; None if it is not known yet, or not any more."""
        return self._frontier.settled if self._looked_at and self._frontier.incarnation == incarnation else None

    def settled_since(self, moment_s: float) -> Position | None:
        """Return what is settled by a look that began after this moment of the monotonic clock; None without one."""
        return self.settled if self._looked_at >= moment_s else None

    def call(self, wakeup: Wakeup) -> None:
        """Set this wake-up once, at the next advance."""
        self._waiters.call(wakeup)

    def look(self, wakeup: Wakeup) -> None:
        """Look at once, and set this wake-up then."""
        self._waiters.ask(wakeup)
        self.wake()

    def wake(self) -> None:
        """Look even if nobody waits: a look was asked for, or the connection was lost or is back."""
        self.wakeup.set()
        self._waiters.hurry()

    async def run(self) -> None:
        """Follow the log for ever. Raises UnsafeLog or another ConfigError when it may not be read."""
        backoff = Backoff(0.05, 5.0)
        while True:
            try:
                connection = await self.database.connect(TAIL)
            except Unavailable as error:
                self.interruptions.note(TAIL, error)
                await self.database.admission.pause(backoff.next_s())
                continue
            try:
                await self._follow_while_open(connection, backoff)
            except (Unavailable, Superseded) as error:
                self.interruptions.note(TAIL, error)
                self.database.give_up(connection, error)
                self._emit(ConnectionLost(TAIL))
                await self.database.admission.pause(backoff.next_s())
            finally:
                connection.terminate()
                self._hold.forget()

    async def _follow_while_open(self, connection: BatchConnection, backoff: Backoff) -> None:
        """Follow the log, and begin again on the same connection when the server lacks something for a while."""
        while True:
            try:
                return await self._follow(connection, backoff)
            except Exhausted as error:
                self.interruptions.note(TAIL, error)
                await anyio.sleep(backoff.next_s())

    async def _follow(self, connection: BatchConnection, backoff: Backoff) -> None:
        """Follow the log until this connection's incarnation is over: from then on it may lead to the wrong server."""
        incarnation = connection.marks.incarnation
        await self._begin(connection)
        looked_again = Backoff(LOOK_AGAIN_FIRST_S, LOOK_AGAIN_MOST_S)
        while incarnation == self.database.incarnation:
            backoff.reset()
            self.interruptions.over()
            asleep, before = self.ringing.armed and not self._frontier.waiting, self._frontier.settled
            await self._wait(connection, looked_again)
            self._emit(FollowerWoke(self.log.name, self.wakeup.source))
            await self._look(connection)
            if asleep and self._frontier.settled > before:
                self.ringing.found()

    async def _begin(self, connection: BatchConnection) -> None:
        """Check the log, forget what was known of it, look; only then `settled` is of this incarnation."""
        self._looked_at = 0.0
        state = await self._check(connection)
        # Begin at the greatest checkpoint: for whoever wrote it everything up to it was settled.
        self._frontier = Frontier(settled=state.checkpoint, incarnation=connection.marks.incarnation)
        self.ringing.begin()
        self._hold.forget()
        await self._look(connection)
        self._waiters.advanced()
        await self._rules.record(connection, self._frontier.settled)

    async def _wait(self, connection: BatchConnection, looked_again: Backoff) -> None:
        if not self.ringing.armed:
            # Before any wait: under many writers the frontier is never free, and the bell would stay armed.
            await self.ringing.disarm(connection)
        self.wakeup.source = WORK  # what has woken it, if nothing below waits
        if not self.ringing.armed:
            await self._wanted(connection)
            await self.ringing.linger(self._looked_at, self.readers)
        elif self._frontier.waiting:
            await self.wakeup.wait(looked_again.next_s())
        else:
            looked_again.reset()
            await self._sleep(connection)

    async def _sleep(self, connection: BatchConnection) -> None:
        await self._wanted(connection)
        await self.ringing.sleep(connection, self.database.resting.rests(connection))

    async def _wanted(self, connection: BatchConnection) -> None:
        """Wait until somebody wants more; check the rules when that is due.

        Who reads a long backlog wants no more for a while, but relies on the rules.
        """
        while not self._waiters.want_more:
            async with self.database.resting.rests(connection):
                if await self._waiters.wanted(self._rules.due_s):
                    return
            await self._check(connection)

    async def _check(self, connection: BatchConnection) -> LogState:
        return await self._rules.check(connection, self._frontier.settled if self._looked_at else None)

    async def _look(self, connection: BatchConnection) -> None:
        if self._rules.overdue:
            await self._check(connection)
        began, before = time.monotonic(), self._frontier.settled
        look, frontier = await self._observe(connection)
        if frontier.waiting:
            frontier = frontier.extend(await log.run_end(connection, self.log.name, frontier.settled, look.head))
        self._frontier = frontier
        self.ringing.saw(look)
        if frontier.settled > before or not frontier.waiting:
            self._hold.released(frontier.settled)
        if frontier.settled > before:
            self._waiters.advanced()
        self._looked_at = began
        self._waiters.looked()
        if frontier.waiting:
            await self._hold.look(connection, frontier.settled)
        if not self._rules.due_s:  # only now, so that in steady traffic no event waits for it
            await self._check(connection)

    async def _observe(self, connection: BatchConnection) -> tuple[log.Look, Frontier]:
        look = await log.observe(connection, self.log.name, self._frontier.settled)
        if look.flaw is not None:
            await self._check(connection)
            raise UnsafeLog(log_check.of_flaw(look.flaw))
        try:
            holders, prepared = frozenset(look.holders), frozenset(look.prepared)
            seen = Observation(look.head, holders, prepared, connection.marks.incarnation)
            return look, self._frontier.observe(seen)
        except UnsafeLog:
            await log_check.renew_identity(connection, self.log.name)
            raise
