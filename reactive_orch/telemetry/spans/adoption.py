"""A member's side of a rebalance: how it adopts a generation. The last to acknowledge tells the end of the whole."""

from __future__ import annotations

import time
from itertools import groupby
from typing import TYPE_CHECKING, Any

from reactive_orch.telemetry import span_names as s
from reactive_orch.telemetry.spans import tracer
from reactive_orch.telemetry.spans.rebalance import SQL, attributes, looked_ns, nanoseconds, remember
from reactive_orch.telemetry.spans.tracer import SpanData

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from reactive_orch.model import MemberId, Partition, Subscription
    from reactive_orch.model.reports import AdoptionEnded, Expelled, GenerationCompleted, Left, Report
    from reactive_orch.telemetry.span_names import SpanKind


class Adoptions:
    """The spans of adoptions. Each is sent when its adoption has ended."""

    def __init__(self) -> None:
        """Start without any."""
        self._last: dict[MemberId, str] = {}
        """Member → the traceparent of its last adoption: an expulsion is linked to it."""
        self._sent: tuple[Report, str | None] | None = None
        """The report of which a span was sent last, and that span's traceparent."""

    def sent_of(self, report: Report) -> str | None:
        """Return the traceparent of the span that has just been sent of this report; None without one."""
        return self._sent[1] if self._sent is not None and self._sent[0] is report else None

    def ended(self, report: AdoptionEnded) -> None:
        """Send an adoption and its steps."""
        steps, facts = report.steps, report.facts
        turn, snapshot = steps.turn, steps.snapshot
        common = attributes(turn, snapshot.generation)
        moves = {
            "reactive_orch.partitions.revoked": facts.gave,
            "reactive_orch.partitions.gained": facts.took,
            "reactive_orch.partitions.kept": facts.kept,
            "reactive_orch.partitions.ranges": ranges(report.assigned),
            "reactive_orch.wake.source": turn.source,
            "reactive_orch.outcome": report.outcome,
        }
        sent = tracer.send(
            SpanData(
                kind=s.ADOPT,
                name=f"adopt {turn.replica_set}",
                start_ns=looked_ns(turn, snapshot),
                end_ns=report.ended_ns,
                attributes={**common, **moves},
                parent=snapshot.traceparent,
            )
        )
        self._sent = report, sent
        if sent is not None:
            remember(self._last, turn.member, sent)
            for kind, start_ns, end_ns, more in _steps(report):
                both = {**common, **more}
                tracer.send(
                    SpanData(kind=kind, name=kind.name, start_ns=start_ns, end_ns=end_ns, attributes=both, parent=sent)
                )
        tracer.flush()

    def completed(self, report: GenerationCompleted) -> None:
        """Send the end of a generation."""
        turn, snapshot, last = report.turn, report.snapshot, report.last
        assert snapshot.created_at is not None
        assert last.completed_at is not None
        sent = tracer.send(
            SpanData(
                kind=s.COMPLETE,
                name=f"complete {turn.replica_set}",
                start_ns=nanoseconds(snapshot.created_at),
                end_ns=nanoseconds(last.completed_at),
                attributes={
                    **attributes(turn, snapshot.generation),
                    "reactive_orch.rebalance.reason": snapshot.reason.value if snapshot.reason else "",
                    "reactive_orch.rebalance.subject": ",".join(map(str, snapshot.subjects)),
                    "reactive_orch.outcome": "settled",
                    "reactive_orch.member.count": len(snapshot.members),
                    "reactive_orch.partitions.moved": snapshot.moved,
                    "reactive_orch.partitions.kept": last.kept,
                    "reactive_orch.rebalance.slowest_member": last.slowest,
                    "reactive_orch.phase.notify.max": last.notify_max_s,
                    "reactive_orch.phase.finish.max": last.finish_max_s,
                    "reactive_orch.phase.load.max": last.load_max_s,
                },
                parent=snapshot.traceparent,
            )
        )
        self._sent = report, sent

    def expelled(self, report: Expelled) -> None:
        """Send that a worker has found itself removed."""
        turn, snapshot = report
        tracer.send(
            SpanData(
                kind=s.EXPELLED,
                name=f"expelled {turn.replica_set}",
                start_ns=looked_ns(turn, snapshot),
                end_ns=time.time_ns(),
                attributes=attributes(turn, snapshot.generation),
                parent=snapshot.traceparent if turn.member in snapshot.subjects else None,
                links=[(self._last.pop(turn.member, None), "adopt")],
            )
        )
        tracer.flush()

    def left(self, report: Left) -> None:
        """Forget who has left."""
        self._last.pop(report.turn.member, None)


def _steps(report: AdoptionEnded) -> Iterator[tuple[SpanKind, int, int, dict[str, Any]]]:
    steps, facts = report.steps, report.facts
    turn = steps.turn
    yield s.OBSERVE, looked_ns(turn, steps.snapshot), turn.observed_ns, SQL
    if facts.gave and steps.finished_ns:
        revoked = {
            "reactive_orch.partitions.revoked": facts.gave,
            "reactive_orch.partitions.in_flight": steps.in_flight,
        }
        yield s.FINISH, turn.observed_ns, steps.finished_ns, revoked
    if facts.took and steps.loaded_ns:
        gained = {
            "reactive_orch.partitions.gained": facts.took,
            "reactive_orch.wait.duration": steps.row_wait_s,
            "reactive_orch.wait.longest_partition": steps.row_waited_for,
        }
        yield s.LOAD, turn.observed_ns, steps.loaded_ns, gained
    if report.acknowledging:
        yield s.ACKNOWLEDGE, report.acknowledging[0], report.ended_ns, SQL


def ranges(held: Mapping[Subscription, Iterable[Partition]]) -> str:
    """Return partitions by projection in short: `sales:0-7,12 search:3`."""
    return " ".join(f"{each.projection}:{_runs(sorted(partitions))}" for each, partitions in sorted(held.items()))


def _runs(numbers: list[int]) -> str:
    runs = [[n for _, n in run] for _, run in groupby(enumerate(numbers), lambda pair: pair[1] - pair[0])]
    return ",".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else f"{run[0]}" for run in runs)
