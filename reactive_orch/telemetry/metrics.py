"""Reports made into counters and histograms. Their names stand in `metric_names`."""

from __future__ import annotations

import sys
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

from reactive_orch.errors import HandlerFailed, kind_of
from reactive_orch.model import Reason, seconds
from reactive_orch.model.events import written_at
from reactive_orch.model.reports import (
    AdoptionEnded,
    Appended,
    BatchEnded,
    ConnectionLost,
    EventUnreadable,
    FollowerWoke,
    GenerationCompleted,
    GenerationNotWritten,
    GenerationWritten,
    HeartbeatSent,
    Interrupted,
    JoinAsked,
    Looked,
    LoopMeasured,
    NodeStarted,
    NodeStopped,
    Notified,
    PoolWaited,
    RunnerStarted,
    SessionBack,
    Subject,
    TurnBegan,
    WindowRead,
    WorkerStarted,
)
from reactive_orch.telemetry import gauges
from reactive_orch.telemetry import metric_names as m
from reactive_orch.telemetry.by_type import Handles, on
from reactive_orch.telemetry.outcomes import error_type_of, outcome_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from reactive_orch.model import Snapshot
    from reactive_orch.model.reports import Report
    from reactive_orch.model.status import Status
    from reactive_orch.telemetry.registry import Registry

ERROR_TYPES_MAX = 50
"""So many types of errors are counted apart, in all: a program may make up new ones for ever."""

_LOST = {Reason.DEATH: "lock", Reason.STALE: "heartbeat"}


class Metrics:
    """What is counted and measured of one process."""

    def __init__(self, registry: Registry, span_of: Callable[[Report], str | None]) -> None:
        """`registry` has the series; `span_of` returns the traceparent of the span that was sent of a report."""
        self._count, self._record = count, record = registry.count, registry.record
        self._span_of = span_of
        self._error_types: set[str] = set()
        self._registry = registry
        self._shown: dict[Callable[[], Status], ExitStack] = {}
        self.handles: Handles = dict(
            [
                on(NodeStarted, self._node_started),
                on(NodeStopped, lambda told: self._shown.pop(told.status).close()),
                on(Appended, lambda told: count(m.EVENTS_APPENDED, amount=told.events)),
                on(WorkerStarted, lambda told: registry.begin(told.replica_set)),
                on(Notified, lambda told: count(m.NOTIFICATIONS, told.channel, told.outcome)),
                on(HeartbeatSent, lambda told: record(m.HEARTBEAT_DURATION, told.duration_s, told.outcome)),
                on(SessionBack, lambda _: count(m.RECONNECTS, "membership")),
                on(ConnectionLost, lambda told: count(m.RECONNECTS, told.kind)),
                on(PoolWaited, lambda told: record(m.POOL_WAIT, told.waited_s, told.pool)),
                on(LoopMeasured, lambda told: record(m.LOOP_DELAY, told.delay_s)),
                on(Interrupted, lambda told: count(m.INTERRUPTIONS, told.place, kind_of(told.error))),
                on(FollowerWoke, lambda told: count(m.WAKE_UPS, "tail", told.source)),
                on(TurnBegan, lambda told: count(m.WAKE_UPS, "turn", told.source)),
                on(Looked, lambda told: self._statement("observe", told.turn.noticed_ns, told.turn.observed_ns)),
                on(JoinAsked, lambda told: count(m.REGISTRATIONS, told.replica_set)),
                on(GenerationWritten, self._written),
                on(GenerationNotWritten, self._not_written),
                on(AdoptionEnded, self._adoption),
                on(GenerationCompleted, self._completed),
                on(RunnerStarted, lambda told: registry.begin(*told.subject)),
                on(WindowRead, lambda told: record(m.READ_DURATION, told.duration_s, *told.subject)),
                on(EventUnreadable, lambda told: self._failed(*told)),
                on(BatchEnded, self._batch),
            ]
        )

    def _node_started(self, report: NodeStarted) -> None:
        self._registry.begin()
        bridge(self._registry)
        self._shown[report.status] = shown = ExitStack()
        shown.enter_context(self._registry.observed(lambda: gauges.of_process(report.status())))

    def _statement(self, name: str, began_ns: int, ended_ns: int) -> None:
        self._record(m.STATEMENT_DURATION, seconds(began_ns, ended_ns), name)

    def _written(self, report: GenerationWritten) -> None:
        self._statement("change", report.began_ns, report.ended_ns)
        replica_set, change, reason = report.turn.replica_set, report.change, report.change.reason.value
        self._count(m.GENERATIONS, replica_set, reason)
        self._count(m.PARTITIONS_MOVED, replica_set, reason, amount=change.moved)
        if change.reason in _LOST:
            source = _LOST[change.reason]
            self._count(m.EXPULSIONS, replica_set, source, amount=len(change.remove))
            noticed_s = seconds(report.turn.noticed_ns, report.ended_ns)
            self._record(m.DETECTION_DURATION, noticed_s, replica_set, source)
        since = report.snapshot.created_at
        if report.written.overtaken and since is not None:
            lasted_s = (report.written.created_at - since).total_seconds()
            self._record(m.REBALANCE_DURATION, lasted_s, replica_set, _reason(report.snapshot), "superseded")
        if not change.members_after(report.snapshot):
            self._record(m.REBALANCE_DURATION, 0.0, replica_set, reason, "settled")

    def _not_written(self, report: GenerationNotWritten) -> None:
        if report.error is None:
            self._statement("change", report.began_ns, report.ended_ns)

    def _adoption(self, report: AdoptionEnded) -> None:
        turn, facts = report.steps.turn, report.facts
        self._count(m.RECONFIGURATIONS, turn.replica_set, report.outcome)
        if report.acknowledging is None:
            return
        began_ns, acknowledged = report.acknowledging
        self._statement("acknowledge", began_ns, report.ended_ns)
        self._count(m.ASSIGNMENTS, turn.replica_set, amount=facts.took)
        total_s = turn.age_s(report.ended_ns)
        self._record(m.ADOPTION_DURATION, total_s, turn.replica_set, traceparent=self._span_of(report))
        phases = {"notify": max(acknowledged.notify_s, 0.0), "finish": facts.finish_s, "load": facts.load_s}
        for phase, duration_s in phases.items():
            if duration_s is not None:
                self._record(m.PHASE_DURATION, duration_s, turn.replica_set, phase)

    def _completed(self, report: GenerationCompleted) -> None:
        labels = (report.turn.replica_set, _reason(report.snapshot), "settled")
        self._record(m.REBALANCE_DURATION, report.duration_s, *labels, traceparent=self._span_of(report))

    def _batch(self, report: BatchEnded) -> None:
        subject, events, duration_s, failure, traceparent, _ = report
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


def bridge(registry: Registry) -> None:
    """Let the application's meters see the metrics, if OpenTelemetry is in use."""
    if "opentelemetry.metrics" in sys.modules:
        from opentelemetry import metrics

        registry.bridge(metrics.get_meter(m.SCOPE), histograms=True)


def _reason(snapshot: Snapshot) -> str:
    return snapshot.reason.value if snapshot.reason else ""
