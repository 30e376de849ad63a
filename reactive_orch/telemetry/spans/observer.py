"""Spans as an observer, and as who is asked for traces."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reactive_orch.model.reports import BatchEnded
from reactive_orch.telemetry.by_type import Handles, on
from reactive_orch.telemetry.spans import batch, tracer

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager

    from reactive_orch.model import Event, EventHandler
    from reactive_orch.model.reports import Subject


class Spans:
    """All spans of one process: made from reports, but for those that others are children of."""

    def __init__(self) -> None:
        """Start without any."""
        self._batches = batch.Batches()
        self.handles: Handles = dict([on(BatchEnded, self._batches.ended)])

    def batch(self, subject: Subject, generation: int, events: Sequence[Event]) -> AbstractContextManager[str | None]:
        """Return the context that the handlers of a batch run in, and its traceparent."""
        return self._batches.context(subject, generation, events)

    def each(self, subject: Subject, handler: EventHandler) -> EventHandler:
        """Return the handler with a span for each event."""
        return batch.each(subject, handler)

    def quiet(self) -> AbstractContextManager[None]:
        """Return a context in which an instrumented database driver makes no spans."""
        return tracer.quiet()
