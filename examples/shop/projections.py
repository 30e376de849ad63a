"""Two read models of a shop: orders per customer, event by event, and a list of orders, in batches."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reactive_orch import Event, projection

if TYPE_CHECKING:
    from collections.abc import Sequence

    import asyncpg


@projection("orders_per_customer", aggregate_types=["Order"])
async def orders_per_customer(event: Event, tx: asyncpg.Connection[asyncpg.Record]) -> None:
    """Count a customer's orders. Through `tx`, so that it happens exactly once.

    The row is a customer's, and orders are appended with the customer as their partition key: so no two workers write
    one row at a time.
    """
    if event.event_type == "OrderPlaced":
        await tx.execute(
            "INSERT INTO orders_per_customer VALUES ($1, 1) "
            "ON CONFLICT (customer) DO UPDATE SET orders = orders_per_customer.orders + 1",
            event.json()["customer"],
        )


@projection("order_list", aggregate_types=["Order"], batch=True)
async def order_list(events: Sequence[Event], tx: asyncpg.Connection[asyncpg.Record]) -> None:
    """Keep each order's last state: one statement for the whole batch.

    A statement may update a row only once, so the last event of each order decides; they come in order.
    """
    last = {event.aggregate_id: event.event_type.removeprefix("Order").lower() for event in events}
    await tx.execute(
        "INSERT INTO order_list SELECT * FROM unnest($1::text[], $2::text[]) "
        "ON CONFLICT (order_id) DO UPDATE SET state = excluded.state",
        list(last),
        list(last.values()),
    )
