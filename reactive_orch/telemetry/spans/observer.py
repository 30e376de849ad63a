"""Spans: an observer of reports, and the `Tracing` that a process asks by default."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reactive_orch.model.reports import (
    AdoptionEnded,
    BatchEnded,
    Expelled,
    FrontierReleased,
    GenerationCompleted,
    GenerationNotWritten,
    GenerationWritten,
    Left,
    SessionBack,
)
from reactive_orch.telemetry.by_type import Handles, on
from reactive_orch.telemetry.spans import batch, incidents, tracer
from reactive_orch.telemetry.spans.adoption import Adoptions
from reactive_orch.telemetry.spans.generation import Generations

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager

    from reactive_orch.model import Change, Event, EventHandler, Snapshot, Turn
    from reactive_orch.model.reports import Report, Subject


class Spans:
    """All spans of one process, made from reports. Batches and generations begin earlier, when they are asked for."""

    def __init__(self) -> None:
        """Start without any."""
        self._batches, self._generations, self._adoptions = batch.Batches(), Generations(), Adoptions()
        self.handles: Handles = dict(
            [
                on(BatchEnded, self._batches.ended),
                on(GenerationWritten, self._generations.written),
                on(GenerationNotWritten, self._generations.not_written),
                on(AdoptionEnded, self._adoptions.ended),
                on(GenerationCompleted, self._adoptions.completed),
                on(Expelled, self._adoptions.expelled),
                on(Left, self._adoptions.left),
                on(FrontierReleased, incidents.frontier_released),
                on(SessionBack, incidents.session_back),
            ]
        )

    def sent_of(self, report: Report) -> str | None:
        """Return the traceparent of the span that has just been sent of this report; None without one."""
        return self._adoptions.sent_of(report)

    def generation(self, turn: Turn, snapshot: Snapshot, change: Change) -> str | None:
        """Begin the trace of a generation that is about to be written; return the traceparent for its row."""
        return self._generations.begin(turn, snapshot, change)

    def batch(self, subject: Subject, generation: int, events: Sequence[Event]) -> AbstractContextManager[str | None]:
        """Return the context that the handlers of a batch run in, and its traceparent."""
        return self._batches.context(subject, generation, events)

    def each(self, subject: Subject, handler: EventHandler) -> EventHandler:
        """Return the handler with a span for each event."""
        return batch.each(subject, handler)

    def quiet(self) -> AbstractContextManager[object]:
        """Return a context in which an instrumented database driver makes no spans."""
        return tracer.quiet()
