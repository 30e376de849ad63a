"""The rebalance trace: each worker's side of a generation, as one trace.

    rebalance               by the worker that wrote the generation; sent at once, with its children
    |- detect, observe, plan assignment, change generation
    `- announce generation  a moment: all that follows from it is below it
       |- adopt             by each member, when it has acknowledged (or was overtaken)
       |  `- observe, finish batches, load checkpoints, acknowledge
       |- expelled          by a removed worker that still lives
       `- complete          by the last to acknowledge, or by whoever wrote the next generation before that

What ties them together is the traceparent of the announcement, in the generation's row. No span is open while another
process must act, and parents are sent before their children: a killed process leaves no span whose parent is missing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from datetime import datetime

    from reactive_orch.model import Snapshot, Turn

SQL = {"db.system.name": "postgresql"}

REMEMBERED_MAX = 100

_Key = TypeVar("_Key")
_Value = TypeVar("_Value")


def remember(known: dict[_Key, _Value], key: _Key, value: _Value) -> None:
    """Note this as the newest. Of more than 100 the oldest goes: what would have removed it may never be told."""
    known.pop(key, None)
    known[key] = value
    if len(known) > REMEMBERED_MAX:
        del known[next(iter(known))]


def attributes(turn: Turn, generation: int) -> dict[str, Any]:
    """Return what every span of a rebalance has."""
    return {
        "reactive_orch.replica_set": turn.replica_set,
        "reactive_orch.generation": generation,
        "reactive_orch.member.id": turn.member,
        "reactive_orch.coordination": True,
    }


def looked_ns(turn: Turn, snapshot: Snapshot) -> int:
    """Return when a look became one at this generation, in ns since 1970.

    Who was looking already when the generation was written has begun before there was one. Viewers would take that for
    clocks that disagree.
    """
    return max(turn.noticed_ns, turn.observed_ns - int(max(snapshot.age_s, 0.0) * 1e9))


def nanoseconds(moment: datetime) -> int:
    """Return a moment of the database's clock as spans have it."""
    return int(moment.timestamp() * 1_000_000) * 1000
