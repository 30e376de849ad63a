"""What a member tells of the generation it adopts, and the last one to acknowledge of the whole."""

from __future__ import annotations

import time
from itertools import groupby
from typing import TYPE_CHECKING, Any

from reactive_orch.model import seconds
from reactive_orch.telemetry import metric_names as m
from reactive_orch.telemetry import span_names as s
from reactive_orch.telemetry.rebalance import SQL, attributes, nanoseconds
from reactive_orch.telemetry.registry import count, record
from reactive_orch.telemetry.spans import tracer
from reactive_orch.telemetry.spans.tracer import SpanData

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from reactive_orch.model import Acknowledged, Adopted, AdoptionSteps, Partition, Snapshot, Turn
    from reactive_orch.telemetry.span_names import SpanKind


def adopted(
    steps: AdoptionSteps,
    facts: Adopted,
    outcome: str,
    ranges: str,
    acknowledging: tuple[int, Acknowledged] | None = None,
) -> str | None:
    """Tell of an adoption that is over; return its span's traceparent. `acknowledging`: since when, what came back."""
    ended_ns, turn = time.time_ns(), steps.turn
    count(m.RECONFIGURATIONS, turn.replica_set, outcome)
    if acknowledging:
        record(m.STATEMENT_DURATION, seconds(acknowledging[0], ended_ns), "acknowledge")
    common = attributes(turn, steps.snapshot.generation)
    moves = {
        "reactive_orch.partitions.revoked": facts.gave,
        "reactive_orch.partitions.gained": facts.took,
        "reactive_orch.partitions.kept": facts.kept,
        "reactive_orch.partitions.ranges": ranges,
        "reactive_orch.wake.source": turn.source,
        "reactive_orch.outcome": outcome,
    }
    told = tracer.send(
        SpanData(
            kind=s.ADOPT,
            name=f"adopt {turn.replica_set}",
            start_ns=turn.noticed_ns,
            end_ns=ended_ns,
            attributes={**common, **moves},
            parent=steps.snapshot.traceparent,
        )
    )
    if acknowledging:
        _count(turn, facts, seconds(turn.noticed_ns, ended_ns), acknowledging[1].notify_s, told)
    if told is not None:
        _tell_steps(steps, facts, told, (acknowledging[0], ended_ns) if acknowledging else None)
    if acknowledging and acknowledging[1].completed_at is not None:
        _completed(steps, acknowledging[1])
    tracer.flush()
    return told


def _count(turn: Turn, facts: Adopted, total_s: float, notify_s: float, told: str | None) -> None:
    count(m.ASSIGNMENTS, turn.replica_set, amount=facts.took)
    record(m.ADOPTION_DURATION, total_s, turn.replica_set, traceparent=told)
    record(m.PHASE_DURATION, max(notify_s, 0.0), turn.replica_set, "notify")
    for phase, duration in (("finish", facts.finish_s), ("load", facts.load_s)):
        if duration is not None:
            record(m.PHASE_DURATION, duration, turn.replica_set, phase)


def _tell_steps(steps: AdoptionSteps, facts: Adopted, parent: str, acknowledging: tuple[int, int] | None) -> None:
    turn = steps.turn
    common = attributes(turn, steps.snapshot.generation)
    parts: list[tuple[SpanKind, int, int, dict[str, Any]]] = [(s.OBSERVE, turn.noticed_ns, turn.observed_ns, SQL)]
    if facts.gave and steps.finished_ns:
        revoked = {
            "reactive_orch.partitions.revoked": facts.gave,
            "reactive_orch.partitions.in_flight": steps.in_flight,
        }
        parts.append((s.FINISH, turn.observed_ns, steps.finished_ns, revoked))
    if facts.took and steps.loaded_ns:
        gained = {
            "reactive_orch.partitions.gained": facts.took,
            "reactive_orch.wait.duration": steps.row_wait_s,
            "reactive_orch.wait.longest_partition": steps.row_waited_for,
        }
        parts.append((s.LOAD, turn.observed_ns, steps.loaded_ns, gained))
    if acknowledging:
        parts.append((s.ACKNOWLEDGE, *acknowledging, SQL))
    for kind, start_ns, end_ns, more in parts:
        both = {**common, **more}
        tracer.send(
            SpanData(kind=kind, name=kind.name, start_ns=start_ns, end_ns=end_ns, attributes=both, parent=parent)
        )


def _completed(steps: AdoptionSteps, last: Acknowledged) -> None:
    snapshot, turn = steps.snapshot, steps.turn
    assert snapshot.created_at is not None
    assert last.completed_at is not None
    reason = snapshot.reason.value if snapshot.reason else ""
    duration_s = (last.completed_at - snapshot.created_at).total_seconds()
    told = tracer.send(
        SpanData(
            kind=s.COMPLETE,
            name=f"complete {turn.replica_set}",
            start_ns=nanoseconds(snapshot.created_at),
            end_ns=nanoseconds(last.completed_at),
            attributes={
                **attributes(turn, snapshot.generation),
                "reactive_orch.rebalance.reason": reason,
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
    record(m.REBALANCE_DURATION, duration_s, turn.replica_set, reason, "settled", traceparent=told)


def expelled(turn: Turn, snapshot: Snapshot, last_adopt: str | None) -> None:
    """Tell that this worker has found itself removed."""
    parent = snapshot.traceparent if turn.member in snapshot.subjects else None
    tracer.send(
        SpanData(
            kind=s.EXPELLED,
            name=f"expelled {turn.replica_set}",
            start_ns=turn.noticed_ns,
            end_ns=time.time_ns(),
            attributes=attributes(turn, snapshot.generation),
            parent=parent,
            links=[(last_adopt, "adopt")],
        )
    )
    tracer.flush()


def ranges(held: Mapping[str, Iterable[Partition]]) -> str:
    """Return partitions by projection in short: `sales:0-7,12 search:3`."""
    return " ".join(f"{name}:{_runs(sorted(partitions))}" for name, partitions in sorted(held.items()))


def _runs(numbers: list[int]) -> str:
    runs = [[n for _, n in run] for _, run in groupby(enumerate(numbers), lambda pair: pair[1] - pair[0])]
    return ",".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else f"{run[0]}" for run in runs)
