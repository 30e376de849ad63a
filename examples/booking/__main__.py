"""Four bookings, and what becomes of them: python -m examples.booking."""

from __future__ import annotations

import asyncio
import uuid
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import asyncpg

from examples.booking.saga import OVER, payments, request, saga, tell_overdue
from examples.common import prepared, run
from reactive_orch import Config, Node, Worker, read_stream

if TYPE_CHECKING:
    from reactive_orch import Event

GUESTS = [
    ("ada", "red room", "good", timedelta(days=1)),
    ("bob", "red room", "good", timedelta(days=1)),
    ("cid", "blue room", "declined", timedelta(days=1)),
    ("dan", "attic", "silent", timedelta()),
]
"""Who wants which room, how his card does, and how long he may take to pay."""


async def over(connection: asyncpg.Connection[asyncpg.Record], booking: str) -> list[Event]:
    """Return the stream of a booking, once it has come to its end."""
    while True:
        stream = await read_stream(connection, "Booking", booking)
        if stream[-1].event_type in OVER:
            return stream
        await asyncio.sleep(0.05)
        await tell_overdue(connection)


async def main() -> None:
    """Request, and show each booking's story."""
    url = await prepared(Path(__file__).with_name("tables.sql"))
    connection = await asyncpg.connect(url)
    house = uuid.uuid4().hex[:6]  # of each run, or the red room would be taken for ever
    for guest, room, card, pay_within in GUESTS:
        await request(connection, f"{guest}@{house}", f"{room}@{house}", card, pay_within)

    async with Node(Config(database_url=url)) as node, asyncio.TaskGroup() as tasks:
        worker = Worker(node, "booking", [saga, payments])
        tasks.create_task(worker.run())
        for guest, *_ in GUESTS:
            stream = await over(connection, f"{guest}@{house}")
            print(f"{guest}: {' ─▶ '.join(each.event_type for each in stream)}", flush=True)
        worker.stop()
    await connection.close()


if __name__ == "__main__":
    run(main)
