"""What a lane does about a failing event: narrow the batch down to it, wait longer each time, in the end give up."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import anyio

from reactive_orch.core.attempts import Attempts
from reactive_orch.errors import HandlerFailed, ProjectionFailed, Unreadable, place_of
from reactive_orch.model.reports import AttemptFailed
from reactive_orch.runtime.backoff import Backoff

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from reactive_orch.core.progress import Batch
    from reactive_orch.model import Partition, Position
    from reactive_orch.runtime.handling.scope import Scope
    from reactive_orch.runtime.wakeup import Wakeup


class Failures:
    """The failing event of one lane, if there is one."""

    def __init__(self, scope: Scope) -> None:
        """Start without one."""
        self.attempts = Attempts()
        self._scope = scope
        self._since: float | None = None
        self._pause = Backoff(0.1, 30.0)

    def since(self, read_to: Mapping[Partition, Position]) -> float | None:
        """Return since when, by the monotonic clock, an event has failed that is still ahead of these partitions.

        None if there is none. `read_to`: partition → up to where the lane has read it.
        """
        return self._since if self.attempts.stands(read_to) else None

    def failed(self, batch: Batch, failing: int | None, read_to: Mapping[Partition, Position]) -> None:
        """Note a failed batch; `failing` is the index of the event that failed, None when unknown."""
        self._since = self.since(read_to) or time.monotonic()
        self.attempts.failed(batch, failing)

    def unreadable(self, low: Position, error: Unreadable, read_to: Mapping[Partition, Position]) -> None:
        """Note an event that could not be read, the first one after `low`."""
        self._since = self.since(read_to) or time.monotonic()
        self.attempts.unreadable(low, error.position, error.partition)

    def passed(self) -> None:
        """Note that a window has been passed: nothing fails now."""
        self._since = None

    def committed(self) -> None:
        """Note a committed batch."""
        self.attempts.succeeded()
        self._pause.reset()

    async def wait(self, error: HandlerFailed, wakeup: Wakeup, stands: Callable[[], bool]) -> None:
        """Wait before the next attempt, no longer than the failing event `stands` ahead; `wakeup` tells when to ask.

        Raises ProjectionFailed when there have been enough attempts.
        """
        scope, attempts = self._scope, self.attempts
        if attempts.count > scope.config.retries:
            msg = (
                f"projection {scope.projection.name!r} failed at event position {attempts.until} "
                f"in {attempts.count} attempts: {error}{f' at {place}' if (place := place_of(error)) else ''}"
            )
            raise ProjectionFailed(msg) from error.__cause__
        scope.watchers.emit(AttemptFailed(scope.subject, attempts.until, error))
        await scope.database.renew()
        with anyio.move_on_after(self._pause.next_s()):
            while stands():
                await wakeup.wait()
