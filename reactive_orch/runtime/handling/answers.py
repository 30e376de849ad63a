"""A lane's answers to those who wait until it has handled something (protocol 6.6)."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import anyio

from reactive_orch.core.awaiters import Awaiters
from reactive_orch.errors import Superseded, Unavailable
from reactive_orch.postgres import handled
from reactive_orch.runtime.interruptions import passing_over

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Sequence

    from reactive_orch.core.progress import Progress
    from reactive_orch.model import Partition
    from reactive_orch.model.awaiter import Awaiter
    from reactive_orch.runtime.handling.scope import Scope
    from reactive_orch.runtime.wakeup import Wakeup

ANSWER_MOST_S = 0.5


class Answers:
    """Who waits for one lane."""

    def __init__(self, scope: Scope, progress: Progress, wakeup: Wakeup) -> None:
        """Start with nobody."""
        self._scope, self._progress, self._wakeup = scope, progress, wakeup
        self._awaiters = Awaiters()

    def __bool__(self) -> bool:
        return bool(self._awaiters)

    def add(self, awaiter: Awaiter) -> None:
        """Answer this one as soon as the lane is so far; it may be so already."""
        if awaiter.wants(self._progress.partitions):
            self._awaiters.add(awaiter, time.monotonic())
            self._wakeup.set()

    async def give(self, save: Callable[[Collection[Partition]], Awaitable[None]]) -> None:
        """Answer those for whom the lane is far enough; first `save` what has been read without finding an event."""
        progress = self._progress
        served = self._awaiters.take_served(progress.read_to, time.monotonic())
        if served:
            wanted = frozenset().union(*(each.wants(progress.partitions) for each in served))
            if progress.unsaved(wanted):
                await save(wanted)
            await self._answer(served)

    async def _answer(self, served: Sequence[Awaiter]) -> None:
        """Tell them, if that is soon: who is not told looks by himself, and events do not wait for it."""
        scope = self._scope
        with (
            passing_over(scope.watchers.emit, "answer", Unavailable, Superseded, of=scope.subject),
            anyio.move_on_after(ANSWER_MOST_S),
        ):
            async with scope.database.coordination(self._progress.incarnation) as connection:
                await handled.answer(connection, served)
