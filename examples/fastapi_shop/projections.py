"""The read model that the pages show: a purchase, as its events have left it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reactive_orch import Event, projection

if TYPE_CHECKING:
    import asyncpg


@projection("purchases", aggregate_types=["Purchase"])
async def purchases(event: Event, tx: asyncpg.Connection[asyncpg.Record]) -> None:
    """Keep each purchase's customer, total and state."""
    if event.event_type == "PurchasePlaced":
        placed = event.json()
        await tx.execute(
            "INSERT INTO purchases VALUES ($1, $2, $3, 'placed')",
            *(event.aggregate_id, placed["customer"], placed["total"]),
        )
    else:
        state = event.event_type.removeprefix("Purchase").lower()
        await tx.execute("UPDATE purchases SET state = $2 WHERE id = $1", event.aggregate_id, state)
