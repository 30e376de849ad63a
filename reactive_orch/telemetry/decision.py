"""What the writer of a generation tells of it: the root of its trace, and the end of the generation it overtook."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from reactive_orch.errors import kind_of
from reactive_orch.model import Reason, seconds
from reactive_orch.telemetry import metric_names as m
from reactive_orch.telemetry import span_names as s
from reactive_orch.telemetry.rebalance import SQL, attributes, nanoseconds
from reactive_orch.telemetry.registry import count, record
from reactive_orch.telemetry.spans import tracer
from reactive_orch.telemetry.spans.tracer import SpanData

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from reactive_orch.model import Change, Snapshot, Turn, Written
    from reactive_orch.telemetry.span_names import SpanKind

_LOST = {Reason.DEATH: "lock", Reason.STALE: "heartbeat"}


class Decision:
    """A generation about to be written: its root span has begun, and is sent unless another one was written first."""

    def __init__(self, turn: Turn, snapshot: Snapshot, new: Change) -> None:
        """Begin the root."""
        self._turn, self._snapshot, self._new = turn, snapshot, new
        self._common = attributes(turn, new.after + 1)
        self._why = {
            "reactive_orch.rebalance.reason": new.reason.value,
            "reactive_orch.rebalance.subject": ",".join(map(str, new.subjects)),
        }
        self._partitions = sum(map(len, {**snapshot.owners, **new.owners}.values()))
        name = f"rebalance {turn.replica_set}"
        links = [(snapshot.traceparent, "previous")]
        self._root = tracer.start(
            SpanData(
                kind=s.REBALANCE, name=name, start_ns=turn.noticed_ns, attributes=self._root_attributes(), links=links
            )
        )
        self._begun_ns = time.time_ns()
        self.traceparent = (self._root and tracer.traceparent_of(self._root)) or tracer.new_traceparent()
        """What ties the trace together; somebody's even when nobody traces here."""

    def _root_attributes(self) -> dict[str, Any]:
        new, snapshot = self._new, self._snapshot
        return {
            **self._common,
            **self._why,
            "reactive_orch.generation.previous": new.after,
            "reactive_orch.member.count": _members_after(snapshot, new),
            "reactive_orch.partition.count": self._partitions,
            "reactive_orch.partitions.moved": new.moved,
            "reactive_orch.wake.source": self._turn.source,
        }

    def written(self, outcome: Written | None) -> None:
        """Tell of the generation, if it was written."""
        ended_ns = time.time_ns()
        record(m.STATEMENT_DURATION, seconds(self._begun_ns, ended_ns), "change")
        if outcome is None:
            return
        self._count(ended_ns)
        if self._root is not None:
            self._root.end(max(self._turn.noticed_ns, ended_ns))  # the wall clock may have been set back
            self._tell_steps(ended_ns)
        if outcome.overtaken and self._snapshot.created_at is not None:
            self._tell_overtaken(self._snapshot.created_at, outcome.created_at)
        if not _members_after(self._snapshot, self._new):
            self._complete(outcome)
        tracer.flush()

    def failed(self, error: BaseException) -> None:
        """Tell that the statement failed. It may have been committed all the same: then others join this root."""
        if self._root is not None:
            tracer.fail(self._root, kind_of(error))
            self._root.end()
            tracer.flush()

    def _count(self, ended_ns: int) -> None:
        turn, new = self._turn, self._new
        count(m.GENERATIONS, turn.replica_set, new.reason.value)
        count(m.PARTITIONS_MOVED, turn.replica_set, new.reason.value, amount=new.moved)
        if new.reason in _LOST:
            source = _LOST[new.reason]
            count(m.EXPULSIONS, turn.replica_set, source, amount=len(new.remove))
            record(m.DETECTION_DURATION, seconds(turn.noticed_ns, ended_ns), turn.replica_set, source)

    def _tell_steps(self, ended_ns: int) -> None:
        turn, new = self._turn, self._new
        for lost in (member for member in self._snapshot.members if member.id in new.remove):
            if new.reason in _LOST:
                facts = {
                    "reactive_orch.rebalance.subject": str(lost.id),
                    "reactive_orch.wake.source": turn.source,
                    "reactive_orch.heartbeat.age": lost.heartbeat_age_s,
                    "reactive_orch.detection.timeout": lost.stale_after_s,
                }
                self._child(s.DETECT, f"detect {new.reason.value}", turn.noticed_ns, ended_ns, facts)
        self._child(s.OBSERVE, "observe", turn.noticed_ns, turn.observed_ns, SQL)
        moves = {
            "reactive_orch.partitions.moved": new.moved,
            "reactive_orch.partitions.kept": self._partitions - new.moved,
        }
        self._child(s.PLAN, "plan assignment", turn.observed_ns, turn.planned_ns, moves)
        self._child(s.CHANGE, "change generation", self._begun_ns, ended_ns, SQL)

    def _child(self, kind: SpanKind, name: str, start_ns: int, end_ns: int, facts: Mapping[str, Any]) -> None:
        both = {**self._common, **facts}
        tracer.send(
            SpanData(kind=kind, name=name, start_ns=start_ns, end_ns=end_ns, attributes=both, parent=self.traceparent)
        )

    def _tell_overtaken(self, since: datetime, until: datetime) -> None:
        """Close the generation before this one: nobody else will."""
        before, turn = self._snapshot, self._turn
        reason = before.reason.value if before.reason else ""
        record(m.REBALANCE_DURATION, (until - since).total_seconds(), turn.replica_set, reason, "superseded")
        tracer.send(
            SpanData(
                kind=s.COMPLETE,
                name=f"complete {turn.replica_set}",
                start_ns=nanoseconds(since),
                end_ns=nanoseconds(until),
                attributes={
                    **attributes(turn, before.generation),
                    "reactive_orch.rebalance.reason": reason,
                    "reactive_orch.rebalance.subject": ",".join(map(str, before.subjects)),
                    "reactive_orch.outcome": "superseded",
                },
                parent=before.traceparent,
                links=[(self.traceparent, "superseded_by")],
            )
        )

    def _complete(self, outcome: Written) -> None:
        """Close a generation without members: it is complete as it is written."""
        record(m.REBALANCE_DURATION, 0.0, self._turn.replica_set, self._new.reason.value, "settled")
        at = nanoseconds(outcome.created_at)
        facts = {
            **self._why,
            "reactive_orch.outcome": "settled",
            "reactive_orch.member.count": 0,
            "reactive_orch.partitions.moved": self._new.moved,
        }
        self._child(s.COMPLETE, f"complete {self._turn.replica_set}", at, at, facts)


def _members_after(snapshot: Snapshot, new: Change) -> int:
    return sum(member.id not in new.remove for member in snapshot.members)
