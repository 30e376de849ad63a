"""Who holds the frontier, and for how long: said after a second, and told when it is over. Nobody else says it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from reactive_orch.model.reports import FrontierHeld, FrontierReleased
from reactive_orch.postgres import log

if TYPE_CHECKING:
    from reactive_orch.model import Holder, LogName, Position
    from reactive_orch.model.reports import Emit
    from reactive_orch.postgres.connection import BatchConnection

HELD_AFTER_S, HELD_REPEAT_S = 1.0, 30.0
"""Who holds the frontier is reported after the first of these, and again whenever the second has passed."""


class HoldWatch:
    """The writers that the frontier waits for."""

    def __init__(self, log: LogName, emit: Emit) -> None:
        """Start without any."""
        self._log = log
        self._emit = emit
        self.holders: list[Holder] = []
        """Who they were when last asked; empty when that is over."""
        self._since: float | None = None
        self._report_at = 0.0

    @property
    def held_s(self) -> float:
        """For how long the frontier has been held, in seconds; 0 when it is free."""
        return 0.0 if self._since is None else time.monotonic() - self._since

    async def look(self, connection: BatchConnection, settled: Position) -> None:
        """Note that the frontier waits at this position; say who holds it when that is due."""
        now = time.monotonic()
        if self._since is None:
            self._since, self._report_at = now, now + HELD_AFTER_S
        elif now >= self._report_at:
            self._report_at = now + HELD_REPEAT_S
            self.holders = await log.holders(connection, self._log)
            self._emit(FrontierHeld(self._log, settled, self.holders))

    def released(self, settled: Position) -> None:
        """Note that the frontier has come to this position; tell of it if it was held for long."""
        if self.held_s > HELD_AFTER_S:
            self._emit(FrontierReleased(self._log, settled, self.holders, self.held_s))
        self.forget()

    def forget(self) -> None:
        """Say no more that somebody holds the log: nobody does, or there is no connection to see whether."""
        self.holders, self._since, self._report_at = [], None, 0.0
