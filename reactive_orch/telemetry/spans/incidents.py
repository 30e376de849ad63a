"""What comes from outside: writers that hold the frontier, a membership connection that is lost."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from reactive_orch.errors import kind_of
from reactive_orch.telemetry import span_names as s
from reactive_orch.telemetry.spans import tracer
from reactive_orch.telemetry.spans.tracer import SpanData

if TYPE_CHECKING:
    from reactive_orch.model.reports import FrontierReleased, SessionBack


def frontier_released(report: FrontierReleased) -> None:
    """Send how long writers held the frontier, and who was the oldest of them."""
    now_ns = time.time_ns()
    oldest = report.holders[0] if report.holders else None
    facts = {
        "reactive_orch.coordination": True,
        "reactive_orch.frontier.holders": len(report.holders),
        "reactive_orch.frontier.holder.pid": oldest and oldest.pid,
        "reactive_orch.frontier.holder.state": oldest and oldest.state,
        "reactive_orch.position.to": report.settled,
    }
    start_ns = now_ns - int(report.held_s * 1e9)
    tracer.send(
        SpanData(kind=s.FRONTIER_WAIT, name=s.FRONTIER_WAIT.name, start_ns=start_ns, end_ns=now_ns, attributes=facts)
    )


def session_back(report: SessionBack) -> None:
    """Send how long the membership connection was away, and why."""
    facts = {
        "reactive_orch.coordination": True,
        "reactive_orch.connection.kind": "membership",
        "error.type": kind_of(report.error),
    }
    tracer.send(
        SpanData(
            kind=s.RECONNECT,
            name="reconnect membership",
            start_ns=report.since_ns,
            end_ns=time.time_ns(),
            attributes=facts,
        )
    )
