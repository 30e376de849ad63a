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

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from reactive_orch.telemetry import metric_names as m
from reactive_orch.telemetry import spans
from reactive_orch.telemetry.metrics import record

if TYPE_CHECKING:
    from datetime import datetime

    from reactive_orch.model import MemberId, Snapshot

_NS = 1_000_000_000
SQL = {"db.system.name": "postgresql"}


@dataclass(slots=True)
class Turn:
    """One look of a member at its replica set: what woke it, and the times of its steps."""

    replica_set: str
    member: MemberId
    source: str
    noticed_ns: int = field(default_factory=time.time_ns)
    observed_ns: int = 0
    planned_ns: int = 0

    @property
    def age_s(self) -> float:
        """How long ago it began."""
        return seconds(self.noticed_ns, time.time_ns())

    def observed(self) -> None:
        """Note that the snapshot has come."""
        self.observed_ns = time.time_ns()
        record(m.STATEMENT_DURATION, seconds(self.noticed_ns, self.observed_ns), "observe")

    def planned(self) -> None:
        """Note that the change has been computed."""
        self.planned_ns = time.time_ns()

    def attributes(self, generation: int) -> dict[str, Any]:
        """Return what every span of a rebalance has."""
        return {
            "reactive_orch.replica_set": self.replica_set,
            "reactive_orch.generation": generation,
            "reactive_orch.member.id": self.member,
            "reactive_orch.coordination": True,
        }


def seconds(start_ns: int, end_ns: int) -> float:
    """Return a duration; the wall clock may have been set back."""
    return max(end_ns - start_ns, 0) / _NS


def fields(event: str, turn: Turn, snapshot: Snapshot) -> dict[str, Any]:
    """Return what a log line about a rebalance carries besides its words."""
    return {
        "event": event,
        "replica_set": turn.replica_set,
        "generation": snapshot.generation,
        "member": turn.member,
        "trace_id": spans.trace_id(snapshot.traceparent),
    }


def nanoseconds(moment: datetime) -> int:
    """Return a moment of the database's clock as spans have it."""
    return int(moment.timestamp() * 1_000_000) * 1000
