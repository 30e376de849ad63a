"""Append a shop's orders at a steady rate, for something to watch: placed, paid, shipped.

    DATABASE_URL=postgresql://… python examples/demo_appender.py --rate 50 --seconds 60

Where DATABASE_URL is not set, POSTGRES_HOST, _PORT, _USER, _PASSWORD and _DB say where the database is.
Where OTEL_EXPORTER_OTLP_ENDPOINT is set, each append is a span and its event carries the traceparent: the batch that
handles it links to it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import sys
import uuid
from dataclasses import dataclass, field, replace

import asyncpg
from opentelemetry import trace

from reactive_orch import NewEvent, append
from reactive_orch.address import database_url_of_parts
from reactive_orch.telemetry.exporting import exporting

NEXT = {"OrderPlaced": "OrderPaid", "OrderPaid": "OrderShipped"}
RECONNECT_S = 1.0


@dataclass
class Shop:
    """The orders that are not shipped yet."""

    customers: int
    open_orders: dict[str, NewEvent] = field(default_factory=dict)
    """Order → the last event of it."""

    def next_event(self) -> NewEvent:
        """Return what happens next: an order is placed, or an open one goes on."""
        if self.open_orders and random.random() < 2 / 3:  # each order has three events
            last = self.open_orders[random.choice(list(self.open_orders))]
            return replace(last, event_type=NEXT[last.event_type], payload={})
        customer = f"customer-{random.randrange(self.customers)}"
        return NewEvent(
            aggregate_type="Order",
            aggregate_id=uuid.uuid4().hex,
            event_type="OrderPlaced",
            payload={"customer": customer},
            partition_key=customer,
        )

    def happened(self, event: NewEvent) -> None:
        """Remember an event that was committed."""
        if event.event_type in NEXT:
            self.open_orders[event.aggregate_id] = event
        else:
            del self.open_orders[event.aggregate_id]


async def append_one(connection: asyncpg.Connection[asyncpg.Record], event: NewEvent) -> None:
    """Append in a transaction of its own, inside a span."""
    tracer = trace.get_tracer("shop")
    name = f"append {event.event_type}"
    with tracer.start_as_current_span(name, kind=trace.SpanKind.PRODUCER, record_exception=False):
        async with connection.transaction():
            await append(connection, [event])


async def run(url: str, shop: Shop, rate: float, seconds: float) -> int:
    """Append until the time is up; a lost connection is made anew. Return how many events were appended."""
    loop = asyncio.get_running_loop()
    begun, appended = loop.time(), 0
    connection: asyncpg.Connection[asyncpg.Record] | None = None
    due = begun
    while loop.time() - begun < seconds:
        event = shop.next_event()
        try:
            connection = connection or await asyncpg.connect(url, server_settings={"application_name": "demo_appender"})
            await append_one(connection, event)
        except (OSError, asyncpg.PostgresConnectionError, asyncpg.InterfaceError) as error:
            print(json.dumps({"event": "connection lost", "error": type(error).__name__}), file=sys.stderr, flush=True)
            if connection is not None:
                connection.terminate()
                connection = None
            await asyncio.sleep(RECONNECT_S)
            due = loop.time()
            continue
        shop.happened(event)
        appended += 1
        due = max(due + 1 / rate, loop.time() - 1)  # after a pause, catch up with a second of it at most
        await asyncio.sleep(due - loop.time())
    if connection is not None:
        await connection.close()
    return appended


async def main() -> None:
    """Read the options and append until the time is up, or until a signal."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    url = os.environ.get("DATABASE_URL") or database_url_of_parts(os.environ)
    parser.add_argument("--database-url", default=url, help="default: DATABASE_URL, else POSTGRES_HOST and the like")
    parser.add_argument("--rate", type=float, default=20.0, metavar="EVENTS", help="per second (default: 20)")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="for how long (default: until stopped)")
    parser.add_argument("--customers", type=int, default=50, help="how many customers there are (default: 50)")
    options = parser.parse_args()
    if not options.database_url or options.rate <= 0 or options.customers < 1:
        parser.error(
            "give --database-url, DATABASE_URL or POSTGRES_HOST, a --rate above 0, and at least one of --customers"
        )
    with exporting(os.environ):
        work = asyncio.create_task(run(options.database_url, Shop(options.customers), options.rate, options.seconds))
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, work.cancel)
        try:
            print(json.dumps({"event": "done", "appended": await work}), flush=True)
        except asyncio.CancelledError:
            print(json.dumps({"event": "stopped"}), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
