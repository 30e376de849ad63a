"""The writer's side of a rebalance: the root of the new generation's trace, and the end of the one it overtook."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

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


class Generations:
    """Generations about to be written. The root of each has begun; it is not sent if another worker was first."""

    def __init__(self) -> None:
        """Start without any."""
        self._roots: dict[str, Span] = {}

    def begin(self, turn: Turn, snapshot: Snapshot, change: Change) -> str | None:
        """Begin a root; return its traceparent, None when nobody traces here."""
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
        traceparent = tracer.traceparent_of(root)
        if traceparent is not None:
            remember(self._roots, traceparent, root)
        return traceparent

    def written(self, report: GenerationWritten) -> None:
        """Send the root and its children."""
        root = self._roots.pop(report.traceparent, None)
        if root is not None:
            root.end(max(report.turn.noticed_ns, report.ended_ns))  # the wall clock may have been set back
            _send_steps(report)
        if report.written.overtaken and report.snapshot.created_at is not None:
            _send_overtaken(report)
        if not report.change.members_after(report.snapshot):
            _send_complete(report)
        tracer.flush()

    def not_written(self, report: GenerationNotWritten) -> None:
        """Send the root if the statement has failed: it may have been committed, and then others are children of it."""
        root = self._roots.pop(report.traceparent, None)
        if root is not None and report.error is not None:
            tracer.fail(root, kind_of(report.error))
            root.end()
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


def _send_steps(report: GenerationWritten) -> None:
    turn, change = report.turn, report.change
    for lost in (member for member in report.snapshot.members if member.id in change.remove):
        if change.reason in {Reason.DEATH, Reason.STALE}:
            facts = {
                "reactive_orch.rebalance.subject": str(lost.id),
                "reactive_orch.wake.source": turn.source,
                "reactive_orch.heartbeat.age": lost.heartbeat_age_s,
                "reactive_orch.detection.timeout": lost.stale_after_s,
            }
            _send_child(report, s.DETECT, f"detect {change.reason.value}", (turn.noticed_ns, report.ended_ns), facts)
    _send_child(report, s.OBSERVE, "observe", (turn.noticed_ns, turn.observed_ns), SQL)
    moves = {
        "reactive_orch.partitions.moved": change.moved,
        "reactive_orch.partitions.kept": _partitions(report.snapshot, change) - change.moved,
    }
    _send_child(report, s.PLAN, "plan assignment", (turn.observed_ns, turn.planned_ns), moves)
    _send_child(report, s.CHANGE, "change generation", (report.began_ns, report.ended_ns), SQL)


def _send_child(
    report: GenerationWritten, kind: SpanKind, name: str, times_ns: tuple[int, int], facts: Mapping[str, Any]
) -> None:
    tracer.send(
        SpanData(
            kind=kind,
            name=name,
            start_ns=times_ns[0],
            end_ns=times_ns[1],
            attributes={**attributes(report.turn, report.change.after + 1), **facts},
            parent=report.traceparent,
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
    _send_child(report, s.COMPLETE, f"complete {report.turn.replica_set}", (at, at), facts)
