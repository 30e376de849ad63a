"""Create what the measurements write to and fill the log: python -m bench.fill URL EVENTS [--skewed] [--raw] [--bulk]."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from typing import TYPE_CHECKING, Any

import asyncpg

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

TABLES = """
CREATE TABLE IF NOT EXISTS public.bench_checkpoint (id integer PRIMARY KEY, position bigint NOT NULL)
    WITH (fillfactor = 50);
INSERT INTO public.bench_checkpoint VALUES (1, 0) ON CONFLICT DO NOTHING;
CREATE TABLE IF NOT EXISTS public.bench_effects (position bigint NOT NULL, body text NOT NULL);
CREATE TABLE IF NOT EXISTS public.bench_handled (
    position bigint NOT NULL, partition smallint NOT NULL, worker text NOT NULL, created_at timestamptz NOT NULL,
    at timestamptz NOT NULL DEFAULT clock_timestamp());
CREATE TABLE IF NOT EXISTS public.bench_balances (customer text PRIMARY KEY, events bigint NOT NULL);
"""
STEP = 100_000
INSERT = """
INSERT INTO reactive_orch.events (aggregate_type, aggregate_id, aggregate_version, event_type, payload)
SELECT 'Order', 'order-' || n % 5000, $1::bigint + n / 5000 + 1, 'OrderPlaced',
       convert_to('{"customer": "' || n % 977 || '", "total": ' || n || ', "note": "' || repeat('x', 80) || '"}', 'UTF8')
FROM generate_series(0, $2::integer - 1) AS n
"""
INSERT_SKEWED = """
INSERT INTO reactive_orch.events (aggregate_type, aggregate_id, aggregate_version, event_type, payload)
SELECT 'Order', 'order-' || k.key, $1::bigint * 1000000 + row_number() OVER (PARTITION BY k.key), 'OrderPlaced',
       convert_to('{"total": ' || k.n || ', "note": "' || repeat('x', 80) || '"}', 'UTF8')
FROM (SELECT n, floor(5000 * power(random(), 6))::integer AS key FROM generate_series(1, $2::integer) AS n) k
ORDER BY k.n
"""
"""The sixth power: a tenth of the keys have two thirds of the events."""
CONSTRAINTS = """
SELECT conname AS name, format('ALTER TABLE reactive_orch.events ADD CONSTRAINT %I %s', conname, pg_get_constraintdef(oid)) AS made
FROM pg_constraint WHERE conrelid = 'reactive_orch.events'::regclass AND contype IN ('p', 'u')
"""
INDEXES = """
SELECT i.indexrelid::regclass::text AS name, pg_get_indexdef(i.indexrelid) AS made FROM pg_index i
WHERE i.indrelid = 'reactive_orch.events'::regclass AND NOT EXISTS (SELECT FROM pg_constraint c WHERE c.conindid = i.indexrelid)
"""
WRITERS = 2


async def fill_in_bulk(url: str, events: int) -> None:
    """Append as an import of many does: without indexes, which are made afterwards, and without the bell."""
    connection = await asyncpg.connect(url, server_settings={"maintenance_work_mem": "1GB"})
    try:
        await connection.execute(TABLES)
        async with _without_indexes(connection):
            steps = iter(range(0, events, STEP))
            await asyncio.gather(*(_write(url, steps, events) for _ in range(WRITERS)))
        await connection.execute("VACUUM ANALYZE reactive_orch.events")
    finally:
        await connection.close()


@contextlib.asynccontextmanager
async def _without_indexes(connection: Any) -> AsyncIterator[None]:
    constraints, indexes = await connection.fetch(CONSTRAINTS), await connection.fetch(INDEXES)
    for row in constraints:
        await connection.execute(f"ALTER TABLE reactive_orch.events DROP CONSTRAINT {row['name']}")
    for row in indexes:
        await connection.execute(f"DROP INDEX {row['name']}")
    yield
    for row in (*constraints, *indexes):
        await connection.execute(row["made"])


async def _write(url: str, steps: Any, events: int) -> None:
    settings = {"session_replication_role": "replica", "synchronous_commit": "off"}
    connection = await asyncpg.connect(url, server_settings=settings)
    try:
        for done in steps:
            await connection.execute(INSERT, done, min(STEP, events - done))
    finally:
        await connection.close()


async def fill(url: str, events: int, *, skewed: bool = False, raw: bool = False) -> None:
    """Append events, some hundred bytes each, in large transactions; `raw`: leave the table without statistics."""
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(TABLES)
        if raw:
            await connection.execute("ALTER TABLE reactive_orch.events SET (autovacuum_enabled = off)")
        for done in range(0, events, STEP):
            step = min(STEP, events - done)
            if skewed:
                await connection.execute(INSERT_SKEWED, done // STEP, step)
            else:
                await connection.execute(INSERT, done, step)
        if events and not raw:
            await connection.execute("VACUUM ANALYZE reactive_orch.events")
    finally:
        await connection.close()


if __name__ == "__main__":
    if "--bulk" in sys.argv:
        asyncio.run(fill_in_bulk(sys.argv[1], int(sys.argv[2])))
    else:
        asyncio.run(fill(sys.argv[1], int(sys.argv[2]), skewed="--skewed" in sys.argv, raw="--raw" in sys.argv))
