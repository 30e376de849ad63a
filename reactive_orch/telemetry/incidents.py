"""What goes wrong from outside: writers that hold the frontier, connections that are lost."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from reactive_orch.errors import kind_of
from reactive_orch.telemetry import metric_names as m
from reactive_orch.telemetry import span_names as s
from reactive_orch.telemetry.registry import count
from reactive_orch.telemetry.spans import tracer
from reactive_orch.telemetry.spans.tracer import SpanData

if TYPE_CHECKING:
    from collections.abc import Sequence

    from reactive_orch.model import Blocker, Position


def frontier_was_held(held_s: float, blockers: Sequence[Blocker], until: Position) -> None:
    """Tell that writers held the frontier for longer than a moment, and of the oldest of them."""
    now_ns = time.time_ns()
    oldest = blockers[0] if blockers else None
    facts = {
        "reactive_orch.coordination": True,
        "reactive_orch.frontier.holders": len(blockers),
        "reactive_orch.frontier.holder.pid": oldest and oldest.pid,
        "reactive_orch.frontier.holder.state": oldest and oldest.state,
        "reactive_orch.position.to": until,
    }
    start_ns = now_ns - int(held_s * 1e9)
    tracer.send(
        SpanData(kind=s.FRONTIER_WAIT, name=s.FRONTIER_WAIT.name, start_ns=start_ns, end_ns=now_ns, attributes=facts)
    )


def reconnected(kind: str, since_ns: int, error_type: str) -> None:
    """Tell that a lost connection is back."""
    count(m.RECONNECTS, kind)
    facts = {
        "reactive_orch.coordination": True,
        "reactive_orch.connection.kind": kind,
        "error.type": error_type,
    }
    told = SpanData(
        kind=s.RECONNECT, name=f"reconnect {kind}", start_ns=since_ns, end_ns=time.time_ns(), attributes=facts
    )
    tracer.send(told)


def interrupted(place: str, error: BaseException) -> None:
    """Count an error that a loop passes over to try again."""
    count(m.INTERRUPTIONS, place, kind_of(error))
