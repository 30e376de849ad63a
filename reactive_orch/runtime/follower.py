"""The settled end of the log, followed by one task per process for all its lanes (protocol 2.1, 6.3).

Looks only when somebody waits for more and something rang (or a fallback time has passed); while writers hold the
frontier it looks again in 1 to 20 ms. Everything it knows belongs to one incarnation of the database: after any lost
connection it checks the log again and starts with an empty frontier.
"""

from __future__ import annotations

import contextlib
import logging
import random
import time
from typing import TYPE_CHECKING

import anyio

from reactive_orch.core.frontier import Frontier, Observation
from reactive_orch.core.waking import Waking
from reactive_orch.errors import ReactiveOrchError, Superseded, Unavailable, UnsafeLog
from reactive_orch.postgres import log, log_check
from reactive_orch.runtime.backoff import Backoff
from reactive_orch.runtime.interruptions import Interruptions
from reactive_orch.runtime.wakeup import WORK, Wakeup
from reactive_orch.telemetry.incidents import frontier_was_held
from reactive_orch.telemetry.metric_names import RECONNECTS, WAKE_UPS
from reactive_orch.telemetry.metrics import count

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from reactive_orch.incarnation import Incarnation
    from reactive_orch.model import Blocker, LogState, Position
    from reactive_orch.postgres.connection import BatchConnection
    from reactive_orch.postgres.database import Database

POLL_S = 5.0
"""The fallback: how long a lost notification can go unnoticed."""
POLL_DEAF_S = 0.2
"""The same while no notification can arrive, or nobody rings."""
ARMED_S = 20.0
"""For how long writers ring after the last reader has armed the bell; renewed at half time while somebody sleeps."""
LOOK_AGAIN_FIRST_S, LOOK_AGAIN_MOST_S = 0.001, 0.020
BLOCKED_AFTER_S, BLOCKED_REPEAT_S = 1.0, 30.0
"""A frontier that waits longer than the first is reported with who holds it, and again after each of the second."""

CHECK_EVERY_S = 2.0
"""How often what the log must be is looked at in full; what concerns the frontier comes with every look."""

MISSED_TIMES = 2
"""So many finds in a row without a notification are no coincidence."""

_logger = logging.getLogger("reactive_orch")


class LogFollower:
    """How far the log may be read."""

    def __init__(self, database: Database, listening: Callable[[], bool]) -> None:
        """Prepare; `run` follows the log. `listening` tells whether notifications arrive."""
        self._database = database
        self._listening = listening
        self._frontier = Frontier()
        self._known = False
        """The frontier has been looked at in its incarnation."""
        self._waiting: set[Wakeup] = set()
        self._demand = Wakeup()
        self.wakeup = Wakeup()
        self.readers = 1
        """How many processes read this log, as far as known: the more, the less often each looks while nobody rings."""
        self._waking = Waking()
        self._armed_until_s = 0.0
        self._silence: str | None = None
        self.blockers: list[Blocker] = []
        self._held_since: float | None = None
        self._report_at = 0.0
        self._missed = 0
        self._looked_at = self._seen_at = 0.0
        self._asked: set[Wakeup] = set()
        self.interruptions = Interruptions()
        self._check_at = 0.0
        self._witnessed: Position = 0

    @property
    def missed(self) -> bool:
        """Whether events are found that no notification told of, or would be."""
        return self._silence is not None or self._missed >= MISSED_TIMES

    @property
    def holders(self) -> Mapping[str, int]:
        """How many transactions the frontier waits for, by kind."""
        holders, prepared = self._frontier.holders, self._frontier.prepared
        return {"running": len(holders - prepared), "prepared": len(holders & prepared)}

    @property
    def settled(self) -> Position | None:
        """Every position up to here may be read; None while nothing is known of this incarnation."""
        return self.settled_in(self._database.incarnation)

    def settled_in(self, incarnation: Incarnation) -> Position | None:
        """Return the same of this incarnation; None while nothing is known of it, or nothing is any more."""
        return self._frontier.settled if self._known and self._frontier.incarnation == incarnation else None

    def settled_since(self, moment_s: float) -> Position | None:
        """Return what is settled by a look that began after this moment of the monotonic clock; None without one."""
        return self.settled if self._seen_at >= moment_s else None

    @property
    def held_s(self) -> float:
        """For how long writers have held the frontier, in seconds; 0 when it is free, or out of sight."""
        if self._held_since is None or self.settled is None:
            return 0.0
        return time.monotonic() - self._held_since

    def call(self, wakeup: Wakeup) -> None:
        """Set this wake-up once, at the next advance."""
        self._waiting.add(wakeup)
        self._demand.set()

    def look(self, wakeup: Wakeup) -> None:
        """Look at once, and set this wake-up then."""
        self._asked.add(wakeup)
        self.wake()

    def wake(self) -> None:
        """Look at once: something rang, or nothing remembered is valid any more."""
        self.wakeup.set()
        self._demand.set()

    async def run(self) -> None:
        """Follow the log for ever. Raises UnsafeLog or another ConfigError when it may not be read."""
        backoff = Backoff(0.05, 5.0)
        while True:
            try:
                connection = await self._database.connect("tail")
            except Unavailable as error:
                self.interruptions.note("tail", error)
                await anyio.sleep(backoff.next_s())
                continue
            try:
                await self._follow(connection, backoff)
            except (Unavailable, Superseded) as error:
                self.interruptions.note("tail", error)
                self._database.give_up(connection, error)
                count(RECONNECTS, "tail")
                await anyio.sleep(backoff.next_s())
            finally:
                connection.terminate()
                self._forget_holders()

    async def _follow(self, connection: BatchConnection, backoff: Backoff) -> None:
        """Follow the log until this connection's incarnation is over: then it, too, may lead to the wrong server."""
        incarnation = connection.marks.incarnation
        await self._begin(connection)
        looked_again = Backoff(LOOK_AGAIN_FIRST_S, LOOK_AGAIN_MOST_S)
        while incarnation == self._database.incarnation:
            backoff.reset()
            self.interruptions.over()
            asleep, before = self._waking.armed and not self._frontier.waiting, self._frontier.settled
            if not self._waking.armed:
                # Before anything is waited for: under many writers the frontier always waits for one of them.
                await self._disarm(connection)
            self.wakeup.source = WORK  # unless it is waited for
            if not self._waking.armed:
                await self._gather(connection)
            elif self._frontier.waiting:
                await self.wakeup.wait(looked_again.next_s())
            else:
                looked_again.reset()
                await self._sleep(connection)
            count(WAKE_UPS, "tail", self.wakeup.source)
            await self._look(connection)
            if asleep and self._frontier.settled > before:
                self._missed = self._missed + 1 if self.wakeup.source == "timer" else 0

    async def _begin(self, connection: BatchConnection) -> None:
        """Check the log, forget what was known of it, look; only then `settled` is of this incarnation."""
        self._known = False
        state = await self._check(connection)
        # A checkpoint was written by somebody for whom everything up to it was settled.
        self._frontier = Frontier(settled=state.checkpoint, incarnation=connection.marks.incarnation)
        self._waking, self._armed_until_s = Waking(), 0.0
        self._held_since, self.blockers, self._report_at = None, [], 0.0
        await self._look(connection)
        self._known = True
        self._announce()
        await self._witness(connection, unless_within_s=0.0)

    async def _check(self, connection: BatchConnection) -> LogState:
        try:
            state = await log_check.check(connection)
        except UnsafeLog:
            # What was hidden from this worker since the last check stands in the record as a gap, and will differ.
            with contextlib.suppress(ReactiveOrchError):
                if self._known:
                    await self._witness(connection, unless_within_s=0.0)
            raise
        self._check_at = time.monotonic() + CHECK_EVERY_S
        if self._known and self._frontier.settled > self._witnessed:
            await self._witness(connection, CHECK_EVERY_S)
        return state

    async def _witness(self, connection: BatchConnection, unless_within_s: float) -> None:
        """Have the log recorded as it is: by one of its readers, every few seconds, while it grows."""
        self._witnessed = await log_check.witness(connection, self._frontier.settled, unless_within_s)

    async def _look(self, connection: BatchConnection) -> None:
        if time.monotonic() >= self._check_at:
            await self._check(connection)
        self._looked_at = time.monotonic()
        before = self._frontier.settled
        look, frontier = await self._observe(connection)
        if frontier.waiting:
            frontier = frontier.extend(await log.run_end(connection, frontier.settled, look.head))
        self._frontier = frontier
        self._waking = self._waking.observe(look.head, time.monotonic(), disarmed=look.disarmed, queue=look.queue)
        if frontier.settled > before or not frontier.waiting:
            self._released()
        if frontier.settled > before:
            self._announce()
        self._seen_at = self._looked_at
        self._answer()
        if frontier.waiting:
            await self._watch_holders(connection)

    def _answer(self) -> None:
        asked, self._asked = self._asked, set()
        for wakeup in asked:
            wakeup.set()

    async def _observe(self, connection: BatchConnection) -> tuple[log.Look, Frontier]:
        look = await log.observe(connection)
        if look.flaw is not None:
            await self._check(connection)
            raise UnsafeLog(log_check.of_flaw(look.flaw))
        try:
            holders, prepared = frozenset(look.holders), frozenset(look.prepared)
            seen = Observation(look.head, holders, prepared, connection.marks.incarnation)
            return look, self._frontier.observe(seen)
        except UnsafeLog:
            await log_check.renew_identity(connection)
            raise

    async def _wanted(self, connection: BatchConnection) -> None:
        """Wait until somebody wants more. Who reads a long backlog does not for a while, but relies on the rules."""
        while not self._waiting and not await self._demand.wait(max(self._check_at - time.monotonic(), 0.0)):
            await self._check(connection)

    def _announce(self) -> None:
        waiting, self._waiting = self._waiting, set()
        for wakeup in waiting:
            wakeup.set()

    def _released(self) -> None:
        if self.held_s > BLOCKED_AFTER_S:
            frontier_was_held(self.held_s, self.blockers, self._frontier.settled)
        self._forget_holders()

    def _forget_holders(self) -> None:
        """Say no more that somebody holds the log: nobody does, or there is no connection to see whether."""
        self._held_since, self.blockers, self._report_at = None, [], 0.0

    async def _watch_holders(self, connection: BatchConnection) -> None:
        now = time.monotonic()
        if self._held_since is None:
            self._held_since, self._report_at = now, now + BLOCKED_AFTER_S
        elif now >= self._report_at:
            self._report_at = now + BLOCKED_REPEAT_S
            self.blockers = await log.blockers(connection)
            _logger.warning(
                "the log cannot be read beyond position %d, held by %s",
                self._frontier.settled,
                "; ".join(map(str, self.blockers)) or "a transaction that has just ended",
                extra={"event": "frontier_held"},
            )

    async def _sleep(self, connection: BatchConnection) -> None:
        """Wait for the bell: armed first, then looked once more, or else an event in between would ring for nobody."""
        await self._wanted(connection)
        if self._armed_until_s - time.monotonic() < ARMED_S / 2:
            self._note_silence(await log.arm(connection, ARMED_S))
            self._armed_until_s = time.monotonic() + ARMED_S
        else:
            poll_s = POLL_S if self._listening() and self._silence is None else POLL_DEAF_S
            await self.wakeup.wait(poll_s * random.uniform(0.8, 1.0))

    def _note_silence(self, silence: str | None) -> None:
        """Say why nobody rings when that begins, and when it ends; what was missed until then is no sign any more."""
        if silence is not None and silence != self._silence:
            _logger.warning(
                "writers do not ring, looking for events every %g s: %s",
                POLL_DEAF_S,
                silence,
                extra={"event": "silent"},
            )
        if silence is None and self._silence is not None:
            _logger.info("writers ring again", extra={"event": "ringing"})
            self._missed = 0
        self._silence = silence

    async def _gather(self, connection: BatchConnection) -> None:
        """Wait until somebody wants more and a time has passed since the last look, in which more of it gathers.

        Since the last look: whose handlers take longer waits for nothing. Not sooner while writers hold the frontier:
        among many of them somebody always does.
        """
        await self._wanted(connection)
        await self.wakeup.wait(max(self._looked_at + self._waking.look_every_s(self.readers) - time.monotonic(), 0.0))

    async def _disarm(self, connection: BatchConnection) -> None:
        if self._armed_until_s:
            self._armed_until_s = 0.0
            await log.arm(connection, 0)
