"""The warmest reading of each sensor and hour, twice: a statement for each event, and COPY for the whole batch."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from reactive_orch import Event, projection

if TYPE_CHECKING:
    from collections.abc import Sequence

    import asyncpg


def row(event: Event) -> tuple[str, datetime, float]:
    """Return what is copied of an event."""
    reading = event.json()
    return event.aggregate_id, datetime.fromisoformat(reading["at"]), reading["celsius"]


@projection("one_by_one", aggregate_types=["Sensor"])
async def one_by_one(event: Event, tx: asyncpg.Connection[asyncpg.Record]) -> None:
    """Write row by row."""
    await tx.execute(
        "INSERT INTO hours_one_by_one AS kept VALUES ($1, date_trunc('hour', $2::timestamptz), 1, $3) "
        "ON CONFLICT (sensor, hour) DO UPDATE SET readings = kept.readings + 1, "
        "warmest = greatest(kept.warmest, excluded.warmest)",
        *row(event),
    )


@projection("copied", aggregate_types=["Sensor"], batch=True)
async def copied(events: Sequence[Event], tx: asyncpg.Connection[asyncpg.Record]) -> None:
    """Copy the batch beside the table, and from there into it: COPY can only add rows, INSERT can also change some.

    The temporary table ends with the batch. Each row of the table is written once, whatever the batch has of it. (One
    INSERT from arrays, as in examples/shop, is about as quick; COPY takes columns that are arrays themselves, too.)
    """
    await tx.execute("CREATE TEMP TABLE staged (sensor text, at timestamptz, celsius real) ON COMMIT DROP")
    await tx.copy_records_to_table("staged", records=list(map(row, events)))
    await tx.execute(
        "INSERT INTO hours AS kept "
        "SELECT sensor, date_trunc('hour', at), count(*), max(celsius) FROM staged GROUP BY 1, 2 "
        "ON CONFLICT (sensor, hour) DO UPDATE SET readings = kept.readings + excluded.readings, "
        "warmest = greatest(kept.warmest, excluded.warmest)"
    )
