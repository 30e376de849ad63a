"""Two read models of one log that have nothing to do with each other."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reactive_orch import Event, projection

if TYPE_CHECKING:
    from collections.abc import Sequence

    import asyncpg


@projection("last_pages", aggregate_types=["Visitor"])
async def last_pages(event: Event, tx: asyncpg.Connection[asyncpg.Record]) -> None:
    """Keep where each visitor is."""
    await tx.execute(
        "INSERT INTO last_pages VALUES ($1, $2) ON CONFLICT (visitor) DO UPDATE SET page = excluded.page",
        event.aggregate_id,
        event.json()["page"],
    )


@projection("visits", aggregate_types=["Visitor"], batch=True)
async def visits(events: Sequence[Event], tx: asyncpg.Connection[asyncpg.Record]) -> None:
    """Keep every visit; a rewind brings some again."""
    await tx.execute(
        "INSERT INTO visits SELECT * FROM unnest($1::bigint[], $2::text[], $3::text[]) ON CONFLICT DO NOTHING",
        [event.global_position for event in events],
        [event.aggregate_id for event in events],
        [event.json()["page"] for event in events],
    )
