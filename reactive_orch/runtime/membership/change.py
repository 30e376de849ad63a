"""Writing a generation: the change that a replica set needs (protocol 5.3)."""

from __future__ import annotations

import secrets
import time
from typing import TYPE_CHECKING

from reactive_orch.core import generation as core
from reactive_orch.model.reports import GenerationNotWritten, GenerationWritten, OrphansSpared
from reactive_orch.postgres import membership

if TYPE_CHECKING:
    from reactive_orch.model import Change, Snapshot, Turn, Written
    from reactive_orch.model.reports import Watchers
    from reactive_orch.postgres.connection import AnyConnection


async def write_generation(
    connection: AnyConnection, turn: Turn, snapshot: Snapshot, new: Change, watchers: Watchers
) -> Written | None:
    """Write the generation that follows from the snapshot; None when the replica set has moved on.

    Then the connections that removed processes have left behind are ended.
    """
    turn.planned_ns = time.time_ns()
    written = await _told(connection, turn, snapshot, new, watchers)
    orphans = core.orphans(snapshot, new)
    if written and orphans:
        spared = await membership.terminate(connection, orphans)
        if spared:
            watchers.emit(OrphansSpared(turn, snapshot, spared))
    return written


async def _told(
    connection: AnyConnection, turn: Turn, snapshot: Snapshot, new: Change, watchers: Watchers
) -> Written | None:
    traceparent = watchers.tracing.generation(turn, snapshot, new) or _new_traceparent()
    began_ns = time.time_ns()
    try:
        written = await membership.change(connection, turn, new, traceparent)
    except BaseException as error:
        watchers.emit(GenerationNotWritten(turn, traceparent, began_ns, time.time_ns(), error))
        raise
    if written is None:
        watchers.emit(GenerationNotWritten(turn, traceparent, began_ns, time.time_ns(), None))
    else:
        watchers.emit(GenerationWritten(turn, snapshot, new, traceparent, began_ns, time.time_ns(), written))
    return written


def _new_traceparent() -> str:
    """Return a traceparent without a span: it ties together what several workers report of one generation."""
    return f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-01"
