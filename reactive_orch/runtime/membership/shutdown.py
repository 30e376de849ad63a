"""When a worker's life ends: it was asked to stop, or has come to the end of the log and was to stop there."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import anyio

from reactive_orch.errors import ConfigError
from reactive_orch.runtime.membership.leaving import LEAVE_TIMEOUT_S

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Mapping

    from reactive_orch.model import LogName, Position
    from reactive_orch.runtime.handling.runners import Runners
    from reactive_orch.runtime.reading.follower import LogFollower

LOOK_S = 0.5
"""While the database is away, a worker that is to stop waits no longer than this between attempts."""


class Shutdown:
    """Whether a worker is to stop, and whether it has done all that it does before."""

    def __init__(self, *, until_idle: bool, grace_s: float) -> None:
        """`until_idle`: stop once everything that was settled at the start has been handled.

        `grace_s`: how long handlers may go on once the worker is to stop, in seconds.
        """
        self.until_idle = until_idle
        self.asked = anyio.Event()
        self.failure: Exception | None = None
        """What its work ended with first."""
        self._grace_s = grace_s
        self._began_at = 0.0
        self._since: float | None = None
        self._away_since: float | None = None
        self._target: tuple[int, Mapping[LogName, Position]] | None = None

    @property
    def begun(self) -> bool:
        """Whether the worker is to stop."""
        return self.asked.is_set()

    def work_begins(self) -> None:
        """Note when the work began: only a later look at the log shows what is to be handled until idle."""
        self._began_at = time.monotonic()

    async def watching(self, work: Callable[[], Awaitable[None]]) -> None:
        """Do a part of its work; note what that ends with."""
        try:
            await work()
        except Exception as error:
            self.failure = self.failure or error
            raise

    def note(self, *, reached: bool) -> None:
        """Note whether the database could be reached."""
        self._away_since = None if reached else self._away_since or time.monotonic()

    async def pause(self, seconds: float, sleep: Callable[[float], Awaitable[None]] = anyio.sleep) -> None:
        """Wait before the next attempt to reach the database; being asked to stop ends the wait."""
        if self.begun:
            await anyio.sleep(min(seconds, LOOK_S))
            return
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._cancel_when_asked, tasks.cancel_scope)
            await sleep(seconds)
            tasks.cancel_scope.cancel()

    async def _cancel_when_asked(self, scope: anyio.CancelScope) -> None:
        await self.asked.wait()
        scope.cancel()

    def is_due(self, followers: Mapping[LogName, LogFollower], incarnation: int, runners: Runners) -> bool:
        """Tell whether it is to stop when idle, and has handled all that was settled when this was first asked.

        Each incarnation of the database has its own first time: a later one may lack what was settled before.
        """
        if self.begun or not self.until_idle:
            return False
        if self._target is None or self._target[0] != incarnation:
            found = {log: followers[log].settled_since(self._began_at) for log in runners.logs}
            settled = {log: position for log, position in found.items() if position is not None}
            if len(settled) < len(found):
                return False
            self._target = (incarnation, settled)
        return runners.reconciled and runners.have_read_to(self._target[1])

    def check_left(self, accepted: int, refused: Collection[str]) -> None:
        """Raise ConfigError if nothing can be done until idle; who does not stop then waits until it is accepted."""
        if self.until_idle and not accepted:
            names = ", ".join(sorted(refused))
            msg = f"no projection left to run: {names} recorded with another filter (see rewind)"
            raise ConfigError(msg)

    def check_complete(self, refused: Collection[str]) -> None:
        """Raise ConfigError if not all is done that was to be done until idle: somebody relies on the exit code."""
        if self.until_idle and refused:
            msg = f"not run until idle: {', '.join(sorted(refused))}, recorded with another filter (see rewind)"
            raise ConfigError(msg)

    def is_over(self, runners: Runners, *, left: bool) -> bool:
        """Tell whether a worker that is to stop has left and saved everything, or has waited for that long enough."""
        if not self.begun:
            return False
        now = time.monotonic()
        self._since = self._since or now
        if self._away_since is not None and now - max(self._since, self._away_since) > LEAVE_TIMEOUT_S:
            return True
        return now - self._since > self._grace_s or (left and runners.reconciled)
