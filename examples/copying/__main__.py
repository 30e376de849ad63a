"""Readings of sensors, handled row by row and by COPY, and how quick each is: python -m examples.copying."""

from __future__ import annotations

import random
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncpg

from examples.common import prepared, run
from examples.copying.projections import copied, one_by_one
from reactive_orch import Config, NewEvent, Node, Projection, Worker, append

READINGS, SENSORS = 3_000, 50
OTHERS = "SELECT count(*) FROM (SELECT * FROM hours EXCEPT SELECT * FROM hours_one_by_one) AS others"


def reading(number: int) -> NewEvent:
    """Return one, a minute after the one before it of the same sensor."""
    at = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=number // SENSORS)
    return NewEvent(
        aggregate_type="Sensor",
        aggregate_id=f"sensor {number % SENSORS}",
        event_type="Measured",
        payload={"at": at.isoformat(), "celsius": round(random.gauss(20, 5), 1)},
    )


async def timed(url: str, projection: Projection) -> None:
    """Handle what there is, and say how quickly."""
    async with Node(Config(database_url=url, batch_events=1000)) as node:
        worker = Worker(node, f"copying_{projection.name}", [projection], until_idle=True)
        begun = time.monotonic()
        await worker.run()
        took_s = time.monotonic() - begun
        events = sum(worker.events_handled.values())
        print(f"{projection.name}: {events} events in {took_s:.1f} s, {events / took_s:,.0f} a second")


async def main() -> None:
    """Append, handle in both ways, and show that both have made the same."""
    url = await prepared(Path(__file__).with_name("tables.sql"))
    connection = await asyncpg.connect(url)
    await append(connection, list(map(reading, range(READINGS))))
    for projection in (one_by_one, copied):
        await timed(url, projection)
    print(f"{await connection.fetchval(OTHERS)} rows differ")
    await connection.close()


if __name__ == "__main__":
    run(main)
