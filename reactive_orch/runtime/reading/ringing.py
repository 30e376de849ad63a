"""Whether writers ring for this process, and its sleep until they do (protocol 6)."""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING

from reactive_orch.core.waking import Waking
from reactive_orch.model.reports import RingingResumed, RingingStopped
from reactive_orch.postgres import log

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager

    from reactive_orch.model import LogName
    from reactive_orch.model.reports import Emit
    from reactive_orch.postgres.connection import BatchConnection
    from reactive_orch.postgres.log import Look
    from reactive_orch.runtime.wakeup import Wakeup

POLL_S = 5.0
"""The fallback: how long a lost notification can go unnoticed."""
POLL_DEAF_S = 0.2
"""The same while no notification can arrive, or nobody rings."""
ARMED_S = 20.0
"""For how long writers ring after the last reader has armed the bell; renewed at half time while somebody sleeps."""

MISSED_TIMES = 2
"""So many finds in a row without a notification are no coincidence."""


class Ringing:
    """The bell, as one process has left it."""

    def __init__(self, log: LogName, wakeup: Wakeup, listening: Callable[[], bool], emit: Emit) -> None:
        """Start as if it was armed. `wakeup` is set by a notification; `listening` tells whether those arrive."""
        self._log = log
        self._wakeup = wakeup
        self._listening = listening
        self._emit = emit
        self._waking = Waking()
        self._armed_until_s = 0.0
        self._silence: str | None = None
        self._missed = 0

    @property
    def armed(self) -> bool:
        """Whether writers are to ring."""
        return self._waking.armed

    @property
    def unrung(self) -> bool:
        """Whether writers do not ring."""
        return self._silence is not None

    @property
    def missed(self) -> bool:
        """Whether writers ring, and several finds in a row came without a notification all the same."""
        return self._silence is None and self._missed >= MISSED_TIMES

    def begin(self) -> None:
        """Begin anew, on another connection: another server may have another bell."""
        self._waking, self._armed_until_s = Waking(), 0.0

    def saw(self, look: Look) -> None:
        """Note a look at the log: its rate decides whether writers are to ring."""
        self._waking = self._waking.observe(look.head, time.monotonic(), disarmed=look.disarmed, queue=look.queue)

    def found(self) -> None:
        """Note that events were found after a sleep; by the timer, if nobody rang."""
        self._missed = self._missed + 1 if self._wakeup.source == "timer" else 0

    async def sleep(self, connection: BatchConnection, rests: AbstractAsyncContextManager[None]) -> None:
        """Arm the bell if that is due, and return for a look; else wait for it, in the context that is given.

        Without the look, an event between the last one and the arming would wake nobody (protocol 6.3).
        """
        if self._armed_until_s - time.monotonic() < ARMED_S / 2:
            self._note_silence(await log.arm(connection, self._log, ARMED_S))
            self._armed_until_s = time.monotonic() + ARMED_S
        else:
            poll_s = POLL_S if self._listening() and self._silence is None else POLL_DEAF_S
            async with rests:
                await self._wakeup.wait(poll_s * random.uniform(0.8, 1.0))

    async def linger(self, looked_at: float, readers: int) -> None:
        """Wait until a time has passed since the last look, so that more events come together.

        Since the last look: whose handlers take longer waits for nothing. Not sooner while writers hold the frontier:
        among many of them somebody always does.
        """
        await self._wakeup.wait(max(looked_at + self._waking.look_every_s(readers) - time.monotonic(), 0.0))

    async def disarm(self, connection: BatchConnection) -> None:
        """Let writers ring no more, if this process has asked them to."""
        if self._armed_until_s:
            self._armed_until_s = 0.0
            await log.arm(connection, self._log, 0)

    def _note_silence(self, silence: str | None) -> None:
        """Tell why nobody rings when that begins, and when it ends; what was missed until then is no sign any more."""
        if silence is not None and silence != self._silence:
            self._emit(RingingStopped(self._log, silence, POLL_DEAF_S))
        if silence is None and self._silence is not None:
            self._emit(RingingResumed(self._log))
            self._missed = 0
        self._silence = silence
