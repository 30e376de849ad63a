"""How one lane calls its handler: each call timed, marked where that is asked for, and setbacks told from failures."""

from __future__ import annotations

import contextlib
import time
from functools import partial
from typing import TYPE_CHECKING

from reactive_orch.errors import HandlerFailed, Unavailable
from reactive_orch.runtime.handling.calling import BATCH_S, Calling
from reactive_orch.runtime.handling.setbacks import Setbacks

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from reactive_orch.model import Event
    from reactive_orch.postgres.connection import AnyConnection
    from reactive_orch.runtime.handling.markers import Markers
    from reactive_orch.runtime.handling.scope import Scope


class Calls:
    """Those of one lane."""

    def __init__(self, scope: Scope, markers: Markers) -> None:
        """Call nothing yet."""
        self.setbacks = Setbacks(scope)
        self._markers, self._together = markers, scope.projection.batch
        self._timeout_s = scope.timeout_s
        tracing = scope.watchers.tracing
        around = partial(tracing.each, scope.subject) if scope.config.trace_events else None
        self._calling = Calling(scope.projection, self._timeout_s, around, markers.around, scope.around)
        self._called_at: float | None = None
        """Since when handlers have been running, by the monotonic clock."""
        self._returned: tuple[Sequence[Event], float] | None = None
        """The events of the batch in hand, once their calls have returned, and how long these have taken."""

    def run(self, now: float) -> bool:
        """Tell whether handlers are running, and not for longer than they may."""
        return self._called_at is not None and now - self._called_at <= self._timeout_s + BATCH_S

    async def __call__(self, events: Sequence[Event], tx: AnyConnection) -> int:
        """Return how many events have been handled, from the first on.

        Raises HandlerFailed, or what the batch ends with without the handler's doing: Superseded, Unavailable.
        """
        if self._markers.on and self._together:
            await self._markers.put(events)
        self._called_at = began = time.monotonic()
        try:
            handled = await self._calling.marked(on=self._markers.on)(events, tx)
        except HandlerFailed as error:
            await self.setbacks.tell(error, events, tx, time.monotonic() - began)
            raise
        else:
            self._returned = events, time.monotonic() - began
            return handled
        finally:
            self._called_at = None

    def _begin(self) -> None:
        self._returned = None

    @contextlib.asynccontextmanager
    async def losses(self) -> AsyncIterator[None]:
        """Count it when the connection of the block's batch is lost after its calls have returned.

        A handler may have swallowed what told of it. Raises as `Setbacks.lost` does.
        """
        self._begin()
        try:
            yield
        except Unavailable as error:
            if self._returned is not None:
                await self.setbacks.lost(error, *self._returned)
            raise
