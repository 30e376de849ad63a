"""The log as an outbox: what is committed with the application's own rows is posted to somebody else's HTTP endpoint.

At least once, and that is all there can be: the relay may be killed when the endpoint has acted and the answer has not
been noted. Then the event is posted again, with the same key, and it is for the endpoint to act on each key once.

When the endpoint is down each event is tried again, later and later, before the next of the same invoice. When ten
invoices fail alike the relay rests, and tries one event now and then until the endpoint is back (docs/failures.md).
"""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

from reactive_orch import Event, NewEvent, Projection, append, projection

if TYPE_CHECKING:
    import aiohttp
    import asyncpg


async def issue(connection: asyncpg.Connection[asyncpg.Record], cents: int) -> str:
    """Issue an invoice. Row and event are committed together, or neither is; return its id."""
    invoice = uuid.uuid4().hex
    async with connection.transaction():
        await connection.execute("INSERT INTO invoices VALUES ($1, $2)", invoice, cents)
        payload = {"invoice": invoice, "cents": cents}
        event = NewEvent(aggregate_type="Invoice", aggregate_id=invoice, event_type="InvoiceIssued", payload=payload)
        await append(connection, [event])
    return invoice


def relay(http: aiohttp.ClientSession, endpoint: str) -> Projection:
    """Return what posts the events.

    To be run with `batch_events=1`: what is posted twice after a kill is then one event of each lane, and not all that
    a batch had posted before.
    """

    @projection(
        "relay",
        aggregate_types=["Invoice"],
        concurrency=4,  # so many posts at a time
        timeout=10,  # an endpoint that hangs is down; a connection and a transaction wait for its answer
        retries=20,  # with pauses of up to 30 s: some minutes
        replay=False,  # a rewind posts nothing again
    )
    async def post(event: Event, _tx: asyncpg.Connection[asyncpg.Record]) -> None:
        headers = {"Idempotency-Key": str(event.event_id), "Content-Type": "application/json"}
        async with http.post(endpoint, data=event.payload, headers=headers) as response:
            response.raise_for_status()

    return post
