"""What a lane does about a failing event: narrow the batch down to it. Alone, it is set aside."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

import anyio

from reactive_orch.core.attempts import Attempts
from reactive_orch.errors import Superseded
from reactive_orch.model.reports import AttemptFailed
from reactive_orch.runtime.backoff import Backoff

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from reactive_orch.core.progress import Batch, Progress
    from reactive_orch.errors import HandlerFailed, Unreadable
    from reactive_orch.model import Partition, Position, Swap, Window
    from reactive_orch.runtime.handling.scope import Scope


class Failed(NamedTuple):
    """An event that has failed alone, and the batch that passes it."""

    window: Window
    batch: Batch
    position: Position
    error: HandlerFailed
    first: bool
    """It has failed for the first time."""

    def stands(self, progress: Progress) -> bool:
        """Tell whether it is still ahead of the partition that has it: not given away, loaded anew, nor rewound."""
        planned = self.batch.read_to
        return all(
            progress.saved.get(swap.partition) == swap.expected
            and progress.read_to[swap.partition] >= planned[swap.partition]
            for swap in self.batch.swaps
        )

    def standing(self, progress: Progress) -> Sequence[Swap]:
        """Return its swaps, once a connection is there. Raises Superseded if it went while that was awaited."""
        if not self.stands(progress):
            msg = "the partition of a failed event was given away before it could be set aside"
            raise Superseded(msg)
        return self.batch.swaps


class Failures:
    """The failing event of one lane, if there is one."""

    def __init__(self, scope: Scope) -> None:
        """Start without one."""
        self.attempts = Attempts()
        self.alone: Failed | None = None
        """The event that has failed alone, until it is set aside."""
        self._again = Backoff(0.1, 30.0)
        self._scope = scope
        self._since: float | None = None
        self._first = False

    def since(self, read_to: Mapping[Partition, Position]) -> float | None:
        """Return since when, by the monotonic clock, an event has failed that is still ahead of these partitions.

        None if there is none. `read_to`: partition → up to where the lane has read it.
        """
        return self._since if self.attempts.stands(read_to) else None

    def failed(self, window: Window, batch: Batch, error: HandlerFailed, read_to: Mapping[Partition, Position]) -> None:
        """Note a failed batch of a window."""
        self._begin(read_to)
        self.attempts.failed(batch, error.index)
        if len(batch.events) == 1:
            self.alone = Failed(window, batch.beginning(1), self.attempts.until, error, self._first)

    def unreadable(self, window: Window, error: Unreadable, progress: Progress) -> None:
        """Note an event that could not be read, the first one of a window."""
        self._begin(progress.read_to)
        self.attempts.unreadable(window.low, error.position, error.partition)
        batch = progress.unread(window, error.partition, error.position)
        self.alone = Failed(window, batch, error.position, error, self._first)

    def _begin(self, read_to: Mapping[Partition, Position]) -> None:
        self._first = not self.attempts.stands(read_to)
        self._since = self.since(read_to) or time.monotonic()

    def passed(self) -> None:
        """Note that a window has been passed: nothing fails now."""
        self._since = None

    def committed(self) -> None:
        """Note a committed batch."""
        self.attempts.succeeded()
        self._again.reset()

    async def narrow(self, error: HandlerFailed) -> None:
        """Say that the next batch is a smaller one, up to the failing event; wait if it is the same one again."""
        subject, alone = self._scope.subject, error.index is not None
        self._scope.watchers.emit(AttemptFailed(subject, self.attempts.until, error, alone=alone, first=self._first))
        if self.attempts.count > 1:
            await anyio.sleep(self._again.next_s())
