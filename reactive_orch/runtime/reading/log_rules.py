"""The rules that the log must keep, looked at all the time; and the record by which a log that has changed is known."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

from reactive_orch.errors import ReactiveOrchError, UnsafeLog
from reactive_orch.postgres import log_check

if TYPE_CHECKING:
    from reactive_orch.model import LogName, LogState, Position
    from reactive_orch.postgres.connection import BatchConnection

CHECK_EVERY_S = 2.0
"""How often what the log must be is looked at in full; what concerns the frontier comes with every look."""


class LogRules:
    """When they were looked at, and up to where the log has been recorded."""

    def __init__(self, log: LogName) -> None:
        """Start with a look that is due."""
        self._log = log
        self._due_at = 0.0
        self._recorded: Position = 0

    @property
    def due_s(self) -> float:
        """In how many seconds the next look is due; 0 when it is."""
        return max(self._due_at - time.monotonic(), 0.0)

    @property
    def overdue(self) -> bool:
        """Whether nobody has looked for so long that the next reading waits for it; else it goes beside."""
        return time.monotonic() - self._due_at >= CHECK_EVERY_S

    async def check(self, connection: BatchConnection, settled: Position | None) -> LogState:
        """Look at everything. `settled`: up to where the log has been followed so far, None if it has not been yet.

        Raises UnsafeLog.
        """
        try:
            state = await log_check.check(connection, self._log)
        except UnsafeLog:
            # What was hidden from this worker since the last check stands in the record as a gap, and will differ.
            with contextlib.suppress(ReactiveOrchError):
                if settled is not None:
                    await self.record(connection, settled)
            raise
        self._due_at = time.monotonic() + CHECK_EVERY_S
        if settled is not None and settled > self._recorded:
            await self.record(connection, settled, unless_within_s=CHECK_EVERY_S)
        return state

    async def record(self, connection: BatchConnection, settled: Position, *, unless_within_s: float = 0.0) -> None:
        """Have the log recorded as it is: by one of its readers, every few seconds, while it grows."""
        self._recorded = await log_check.witness(connection, self._log, settled, unless_within_s)
