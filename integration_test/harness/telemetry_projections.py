"""Projections that do what telemetry should show: append, fail with a secret, wait."""

from __future__ import annotations

from typing import TYPE_CHECKING

from integration_test.harness.projections import record
from reactive_orch import Event, NewEvent, append, projection

if TYPE_CHECKING:
    import asyncpg

SECRET = "hush-4f1c"  # noqa: S105 - it is the tests' own


@projection("echoing", aggregate_types=["Key"])
async def echoing(event: Event, tx: asyncpg.Connection[asyncpg.Record]) -> None:
    """Append an event of its own for each event."""
    await record(tx, "echoing", event)
    await append(tx, [NewEvent(aggregate_type="Echo", aggregate_id=event.aggregate_id, event_type="Echoed")])


@projection("betraying", aggregate_types=["Key", "Poison"])
async def betraying(event: Event, tx: asyncpg.Connection[asyncpg.Record]) -> None:
    """Fail with the payload in the error, in Python or in the database."""
    if event.aggregate_type != "Poison":
        return
    if event.aggregate_id == "python":
        msg = f"cannot understand {event.payload!r}"
        raise ValueError(msg)
    await tx.fetchval("SELECT $1::text::integer", event.payload.decode())
