"""Reports made into counters and histograms. A new one stands in `metric_names`; here is what it is counted by."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from reactive_orch.errors import HandlerFailed
from reactive_orch.model.events import written_at
from reactive_orch.model.reports import BatchEnded, EventUnreadable, RunnerStarted, WindowRead
from reactive_orch.telemetry import metric_names as m
from reactive_orch.telemetry.by_type import Handles, on
from reactive_orch.telemetry.outcomes import error_type_of, outcome_of

if TYPE_CHECKING:
    from reactive_orch.model.reports import Subject
    from reactive_orch.telemetry.registry import Registry

ERROR_TYPES_MAX = 50
"""So many types of errors are counted apart, in all: a program may make up new ones for ever."""


class Metrics:
    """What is counted and measured of one process."""

    def __init__(self, registry: Registry) -> None:
        """`registry` has the series."""
        self._registry = registry
        self._count, self._record = registry.count, registry.record
        self._error_types: set[str] = set()
        self.handles: Handles = dict(
            [
                on(RunnerStarted, lambda report: registry.begin(*report.subject)),
                on(WindowRead, self._read),
                on(EventUnreadable, lambda report: self._failed(*report)),
                on(BatchEnded, self._batch),
            ]
        )

    def _read(self, report: WindowRead) -> None:
        self._record(m.READ_DURATION, report.duration_s, *report.subject)

    def _batch(self, report: BatchEnded) -> None:
        subject, events, duration_s, failure, traceparent = report
        error_type = "" if failure is None else self._counted(error_type_of(failure))
        self._record(m.HANDLING_DURATION, duration_s, *subject, error_type, traceparent=traceparent)
        self._count(m.BATCHES, *subject, outcome_of(failure))
        if failure is None:
            self._count(m.EVENTS_HANDLED, *subject, amount=len(events))
            self._record(m.BATCH_SIZE, len(events), *subject)
            now = time.time()
            self._record(m.EVENT_AGE, max(now - (written_at(events[0]) or now), 0.0), *subject)
        elif isinstance(failure, HandlerFailed):
            self._failed(subject, failure)

    def _failed(self, subject: Subject, error: BaseException) -> None:
        self._count(m.PROJECTION_ERRORS, *subject, self._counted(error_type_of(error)))

    def _counted(self, error_type: str) -> str:
        """Return the type as metrics have it: the conventions' `_OTHER` for what comes after many."""
        known = self._error_types
        if len(known) < ERROR_TYPES_MAX:
            known.add(error_type)
        return error_type if error_type in known else "_OTHER"
