"""When a worker's life ends: it was asked to stop, or has come to the end of the log and was to stop there."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import anyio

if TYPE_CHECKING:
    from collections.abc import Collection

    from reactive_orch.model import Position
    from reactive_orch.runtime.share import Share

LEAVE_TIMEOUT_S = 3.0
"""Leaving in good order must not hang on a database that is away: then the free lock tells the others."""


class Ending:
    """Whether a worker is to stop, and whether it has done all that it does before."""

    def __init__(self, *, until_idle: bool, grace_s: float) -> None:
        """`until_idle`: stop once everything that was settled at the start has been handled.

        `grace_s`: how long handlers may go on after that, in seconds.
        """
        self.until_idle = until_idle
        self.asked = anyio.Event()
        self._grace_s = grace_s
        self._since: float | None = None
        self._target: Position | None = None

    @property
    def begun(self) -> bool:
        """Whether the worker is to stop."""
        return self.asked.is_set()

    def is_due(self, settled: Position | None, shares: Collection[Share]) -> bool:
        """Tell whether it is to stop when idle, and has handled all that was settled when this was first asked."""
        if self._target is None:
            self._target = settled
        target = self._target
        return (
            self.until_idle
            and target is not None
            and all(share.settled and (share.low is None or share.low >= target) for share in shares)
        )

    def is_over(self, shares: Collection[Share], *, left: bool, unavailable: bool) -> bool:
        """Tell whether a worker that is to stop has left and saved everything, or has waited for that long enough."""
        if not self.begun:
            return False
        self._since = self._since or time.monotonic()
        waited_s = time.monotonic() - self._since
        if unavailable and waited_s > LEAVE_TIMEOUT_S:
            return True
        return waited_s > self._grace_s or (left and all(share.settled for share in shares))
