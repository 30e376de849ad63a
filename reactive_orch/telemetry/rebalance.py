"""The rebalance trace: what workers tell of a generation, each from its own side, as one trace; and the metrics of it.

    rebalance            by the worker that wrote the generation; sent at once: all others are its children
    |- detect, observe, plan assignment, change generation
    |- adopt             by each member, when it has acknowledged (or was overtaken)
    |  `- observe, finish batches, load checkpoints, acknowledge
    |- expelled          by a removed worker that still lives
    `- complete          by the last to acknowledge, or by whoever wrote the next generation before that

What ties them together is the traceparent in the generation's row. No span is open while another process must act, and
parents are sent before their children, so a killed process leaves no span whose parent is missing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from reactive_orch.model import seconds
from reactive_orch.telemetry import metric_names as m
from reactive_orch.telemetry.registry import record
from reactive_orch.telemetry.spans import tracer

if TYPE_CHECKING:
    from datetime import datetime

    from reactive_orch.model import Snapshot, Turn

SQL = {"db.system.name": "postgresql"}


def observed(turn: Turn) -> None:
    """Tell of a look at the replica set."""
    record(m.STATEMENT_DURATION, seconds(turn.noticed_ns, turn.observed_ns), "observe")


def attributes(turn: Turn, generation: int) -> dict[str, Any]:
    """Return what every span of a rebalance has."""
    return {
        "reactive_orch.replica_set": turn.replica_set,
        "reactive_orch.generation": generation,
        "reactive_orch.member.id": turn.member,
        "reactive_orch.coordination": True,
    }


def fields(event: str, turn: Turn, snapshot: Snapshot) -> dict[str, Any]:
    """Return what a log line about a rebalance carries besides its words."""
    return {
        "event": event,
        "replica_set": turn.replica_set,
        "generation": snapshot.generation,
        "member": turn.member,
        "trace_id": tracer.trace_id(snapshot.traceparent),
    }


def nanoseconds(moment: datetime) -> int:
    """Return a moment of the database's clock as spans have it."""
    return int(moment.timestamp() * 1_000_000) * 1000
