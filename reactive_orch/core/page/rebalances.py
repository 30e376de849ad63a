"""Generations as the page, and `trace`, draw them: which phase took how long on which worker."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from reactive_orch.model.traces import trace_id

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from datetime import datetime

    from reactive_orch.model.membership import AdoptionRow, GenerationRow


class Bar(NamedTuple):
    """A phase on one worker."""

    member: int
    phase: str
    start: datetime
    end: datetime
    note: str


def bars_of(row: GenerationRow, adoptions: Sequence[AdoptionRow]) -> Iterator[Bar]:
    """Yield the phases of a generation's rebalance; `adoptions` in the order in which they are to stand."""
    yield Bar(row.initiator, "decide", row.noticed_at, row.created_at, f"told by {row.wake_source}")
    for a in adoptions:
        yield Bar(a.member, "notice", row.created_at, a.noticed_at, f"told by {a.wake_source}")
        if a.finished_at is not None:
            yield Bar(a.member, "finish", a.noticed_at, a.finished_at, f"gave {a.gave}")
        if a.loaded_at is not None:
            yield Bar(a.member, "load", a.noticed_at, a.loaded_at, f"took {a.took}")
        ready = max(moment for moment in (a.noticed_at, a.finished_at, a.loaded_at) if moment is not None)
        yield Bar(a.member, "acknowledge", ready, a.acknowledged_at, f"kept {a.kept}")


def rebalance(row: GenerationRow, adoptions: Sequence[AdoptionRow], *, overtaken: bool) -> Mapping[str, Any]:
    """Return a generation as the page takes it; times of phases in milliseconds since it was noticed."""

    def since_notice(moment: datetime) -> float:
        return _ms(row.noticed_at, moment)

    return {
        "number": row.number,
        "reason": row.reason,
        "subjects": list(row.subjects),
        "at": row.created_at.isoformat(),
        "moved": row.moved,
        "kept": sum(each.kept for each in adoptions),
        "notice_ms": since_notice(row.created_at),
        "settled_ms": None if row.completed_at is None else _ms(row.created_at, row.completed_at),
        "overtaken": overtaken and row.completed_at is None,
        "told_by": row.wake_source,
        "trace": trace_id(row.traceparent),
        "phases": [
            {
                "worker": bar.member,
                "phase": bar.phase,
                "from": since_notice(bar.start),
                "to": since_notice(bar.end),
                "note": bar.note,
            }
            for bar in bars_of(row, adoptions)
        ],
    }


def _ms(start: datetime, end: datetime) -> float:
    return round(max((end - start).total_seconds(), 0.0) * 1000, 1)
