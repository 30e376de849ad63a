"""The writer's side of a rebalance: the beginning of the new generation's trace, the end of the one it overtook."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, NamedTuple

from reactive_orch.errors import kind_of
from reactive_orch.model import Reason
from reactive_orch.telemetry import span_names as s
from reactive_orch.telemetry.spans import tracer
from reactive_orch.telemetry.spans.rebalance import SQL, attributes, nanoseconds, remember
from reactive_orch.telemetry.spans.tracer import SpanData

if TYPE_CHECKING:
    from collections.abc import Mapping

    from opentelemetry.trace import Span

    from reactive_orch.model import Change, Snapshot, Turn
    from reactive_orch.model.reports import GenerationNotWritten, GenerationWritten
    from reactive_orch.telemetry.span_names import SpanKind


_LEAST_NS = 1000
"""The least length that viewers show: longer than the announcement."""


class _Begun(NamedTuple):
    """The root and the announcement of a generation that may never be written."""

    root: Span
    announcement: Span
    announced_ns: int

    def end(self, ended_ns: int) -> None:
        """Send both."""
        self.root.end(ended_ns)
        self.announcement.end(self.announced_ns + 1)  # viewers take an end that is not after its start for a mistake


class Generations:
    """Generations about to be written. The trace of each has begun; it is not sent if another worker was first."""

    def __init__(self) -> None:
        """Start without any."""
        self._begun: dict[str, _Begun] = {}

    def begin(self, turn: Turn, snapshot: Snapshot, change: Change) -> str | None:
        """Begin a trace; return the traceparent of its announcement, None when nobody traces here."""
        root = tracer.start(
            SpanData(
                kind=s.REBALANCE,
                name=f"rebalance {turn.replica_set}",
                start_ns=turn.noticed_ns,
                attributes=_root_attributes(turn, snapshot, change),
                links=[(snapshot.traceparent, "previous")],
            )
        )
        if root is None:
            return None
        now_ns = time.time_ns()
        announcement = tracer.start(
            SpanData(
                kind=s.ANNOUNCE,
                name=s.ANNOUNCE.name,
                start_ns=now_ns,
                attributes=attributes(turn, change.after + 1),
                parent=tracer.traceparent_of(root),
            )
        )
        assert announcement is not None
        traceparent = tracer.traceparent_of(announcement)
        if traceparent is not None:
            remember(self._begun, traceparent, _Begun(root, announcement, now_ns))
        return traceparent

    def written(self, report: GenerationWritten) -> None:
        """Send the root, the announcement and the writer's steps."""
        begun = self._begun.pop(report.traceparent, None)
        if begun is not None:
            begun.end(max(report.turn.noticed_ns, report.ended_ns))  # the wall clock may have been set back
            _send_steps(report, tracer.traceparent_of(begun.root))
        if report.written.overtaken and report.snapshot.created_at is not None:
            _send_overtaken(report)
        if not report.change.members_after(report.snapshot):
            _send_complete(report)
        tracer.flush()

    def not_written(self, report: GenerationNotWritten) -> None:
        """Send what has begun if the statement has failed: it may have been committed, and then others are below it."""
        begun = self._begun.pop(report.traceparent, None)
        if begun is not None and report.error is not None:
            tracer.fail(begun.root, kind_of(report.error))
            begun.end(time.time_ns())
            tracer.flush()


def _root_attributes(turn: Turn, snapshot: Snapshot, change: Change) -> dict[str, Any]:
    return {
        **attributes(turn, change.after + 1),
        **_why(change),
        "reactive_orch.generation.previous": change.after,
        "reactive_orch.member.count": change.members_after(snapshot),
        "reactive_orch.partition.count": _partitions(snapshot, change),
        "reactive_orch.partitions.moved": change.moved,
        "reactive_orch.wake.source": turn.source,
    }


def _why(change: Change) -> dict[str, Any]:
    return {
        "reactive_orch.rebalance.reason": change.reason.value,
        "reactive_orch.rebalance.subject": ",".join(map(str, change.subjects)),
    }


def _partitions(snapshot: Snapshot, change: Change) -> int:
    return sum(map(len, {**snapshot.owners, **change.owners}.values()))


def _send_steps(report: GenerationWritten, root: str | None) -> None:
    turn, change = report.turn, report.change
    for lost in (member for member in report.snapshot.members if member.id in change.remove):
        if change.reason in {Reason.DEATH, Reason.STALE}:
            facts = {
                "reactive_orch.rebalance.subject": str(lost.id),
                "reactive_orch.wake.source": turn.source,
                "reactive_orch.heartbeat.age": lost.heartbeat_age_s,
                "reactive_orch.detection.timeout": lost.stale_after_s,
            }
            times_ns = turn.noticed_ns, report.ended_ns
            _send_child(report, root, s.DETECT, f"detect {change.reason.value}", times_ns, facts)
    _send_child(report, root, s.OBSERVE, "observe", (turn.noticed_ns, turn.observed_ns), SQL)
    moves = {
        "reactive_orch.partitions.moved": change.moved,
        "reactive_orch.partitions.kept": _partitions(report.snapshot, change) - change.moved,
    }
    _send_child(report, root, s.PLAN, "plan assignment", (turn.observed_ns, turn.planned_ns), moves)
    _send_child(report, root, s.CHANGE, "change generation", (report.began_ns, report.ended_ns), SQL)


def _send_child(  # noqa: PLR0913, PLR0917 - what a span has
    report: GenerationWritten,
    parent: str | None,
    kind: SpanKind,
    name: str,
    times_ns: tuple[int, int],
    facts: Mapping[str, Any],
) -> None:
    tracer.send(
        SpanData(
            kind=kind,
            name=name,
            start_ns=times_ns[0],
            end_ns=times_ns[1],
            attributes={**attributes(report.turn, report.change.after + 1), **facts},
            parent=parent,
        )
    )


def _send_overtaken(report: GenerationWritten) -> None:
    """Close the generation before this one: nobody else will."""
    before = report.snapshot
    assert before.created_at is not None
    tracer.send(
        SpanData(
            kind=s.COMPLETE,
            name=f"complete {report.turn.replica_set}",
            start_ns=nanoseconds(before.created_at),
            end_ns=nanoseconds(report.written.created_at),
            attributes={
                **attributes(report.turn, before.generation),
                "reactive_orch.rebalance.reason": before.reason.value if before.reason else "",
                "reactive_orch.rebalance.subject": ",".join(map(str, before.subjects)),
                "reactive_orch.outcome": "superseded",
            },
            parent=before.traceparent,
            links=[(report.traceparent, "superseded_by")],
        )
    )


def _send_complete(report: GenerationWritten) -> None:
    """Close a generation without members: it is complete as it is written."""
    at = nanoseconds(report.written.created_at)
    facts = {
        **_why(report.change),
        "reactive_orch.outcome": "settled",
        "reactive_orch.member.count": 0,
        "reactive_orch.partitions.moved": report.change.moved,
    }
    name, times_ns = f"complete {report.turn.replica_set}", (at, at + _LEAST_NS)
    _send_child(report, report.traceparent, s.COMPLETE, name, times_ns, facts)
