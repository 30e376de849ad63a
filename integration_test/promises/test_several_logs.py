"""A second log in the same database: nothing that is built takes it for granted that there is only one.

Users cannot have one yet: here it is made by hand, as a later version will.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from integration_test.harness.command_line import run
from integration_test.harness.connections import connected, prepared
from integration_test.harness.in_process import run_until_idle, serving
from integration_test.harness.load import append_events
from integration_test.harness.projections import record
from integration_test.harness.waiting import wait_until
from reactive_orch import Event, UnsafeLog, projection
from reactive_orch.model import OWN_LOG, Subscription
from reactive_orch.postgres import overview

if TYPE_CHECKING:
    from integration_test.harness.connections import Connection
    from reactive_orch import Projection

BOOKINGS = Subscription("totals", "bookings")
ORDERS = Subscription("totals", OWN_LOG)
PARTITIONS = {"bookings": 16, OWN_LOG: 64}

COLUMNS = """global_position, partition, bounded_context, aggregate_type, aggregate_id, aggregate_version, event_id,
       event_type, event_version, payload, trace_id, correlation_id, causation_id, metadata, created_at,
       partition_key"""
SECOND_LOG = """
CREATE TABLE public.bookings (LIKE reactive_orch.events INCLUDING ALL);
ALTER TABLE public.bookings DROP COLUMN partition;
ALTER TABLE public.bookings ADD COLUMN partition smallint NOT NULL
    GENERATED ALWAYS AS ((hashtextextended(aggregate_id, 0) & 15)::smallint) STORED;
CREATE INDEX ON public.bookings (partition, (global_position + 0));
CREATE TRIGGER ring AFTER INSERT ON public.bookings FOR EACH STATEMENT EXECUTE FUNCTION reactive_orch.ring();
INSERT INTO reactive_orch.logs (name, relation, sequence, partitions, frontier)
VALUES ('bookings', 'public.bookings', pg_get_serial_sequence('public.bookings', 'global_position'), 16, 'locks');
INSERT INTO reactive_orch.log_witness (log, identity) SELECT l.name, l.identity FROM reactive_orch.logs l
WHERE l.name = 'bookings';
CREATE OR REPLACE VIEW reactive_orch.event_log AS
SELECT 'events'::text COLLATE "C" AS log, COLUMNS FROM reactive_orch.events
UNION ALL
SELECT 'bookings'::text COLLATE "C" AS log, COLUMNS FROM public.bookings;
""".replace("COLUMNS", COLUMNS)
BOOK = """
INSERT INTO public.bookings (aggregate_type, aggregate_id, aggregate_version, event_type)
SELECT 'Booking', 'b-' || n % 20, $1 + 1 + n / 20, 'Booked' FROM generate_series(0, 99) AS n
"""


def totals(worker: str) -> tuple[Projection, Projection]:
    """Return a projection of two logs: it records from which each event was."""

    def of(log: str) -> Projection:
        @projection("totals")
        async def recorded(event: Event, tx: Connection) -> None:
            await record(tx, f"totals of {log}", event, worker=worker)

        return replace(recorded, log=log)

    return of(OWN_LOG), of("bookings")


WRONG = """
WITH there AS (SELECT e.log, e.global_position, e.partition FROM reactive_orch.event_log e)
SELECT t.log, t.global_position, count(h.id) FROM there t
LEFT JOIN public.handled h ON h.projection = 'totals of ' || t.log AND h.position = t.global_position
                          AND h.partition = t.partition
GROUP BY 1, 2 HAVING count(h.id) <> 1
"""
BY_WORKER = "SELECT h.projection, count(DISTINCT h.worker) FROM public.handled h GROUP BY 1"


async def test_two_workers_divide_two_logs_of_one_projection(database: str) -> None:
    async with prepared(database) as connection:
        await connection.execute(SECOND_LOG)
        async with serving(database, *totals("one")) as one, serving(database, *totals("two")) as two:

            async def halves() -> bool:
                return all(
                    len(each.partitions.get(subscription, ())) == PARTITIONS[subscription.log] // 2
                    for each in (one, two)
                    for subscription in (ORDERS, BOOKINGS)
                )

            await wait_until(halves, what="each has half of both logs")
            for n in range(3):
                await asyncio.gather(append_events(connection, 100), connected_book(database, n * 5))
            await wait_until(lambda: nothing_wrong(connection), what="every event of both logs is handled, once")
            assert {row[0]: row[1] for row in await connection.fetch(BY_WORKER)} == {
                "totals of events": 2,
                "totals of bookings": 2,
            }
            await connection.fetchval("SELECT reactive_orch.rewind('test', 'totals', 0, 'bookings')")
            twice = "SELECT count(*) = 600 FROM public.handled WHERE projection = 'totals of bookings'"
            await wait_until(lambda: connection.fetchval(twice), what="one log is handled again")
        assert (
            await connection.fetchval("SELECT count(*) FROM public.handled WHERE projection = 'totals of events'")
            == 300
        )
        seen = await overview.look(connection, "test")
        assert {each.subscription: len(each.saved) for each in seen.projections} == {ORDERS: 64, BOOKINGS: 16}
        shown = (await run("status", DATABASE_URL=database)).done()
        assert "log bookings: 16 partitions, last position 300, settled 300; may be deleted up to position " in shown
        assert "log events: 64 partitions, last position 300, settled 300; may be deleted up to position " in shown


async def connected_book(url: str, version: int) -> None:
    async with connected(url) as writer:
        await writer.execute(BOOK, version)


async def nothing_wrong(connection: Connection) -> bool:
    return not await connection.fetch(WRONG)


async def test_each_log_has_rules_and_an_identity_of_its_own(database: str) -> None:
    async with prepared(database) as connection:
        await connection.execute(SECOND_LOG)
        await append_events(connection, 50)
        await connected_book(database, 0)
        await run_until_idle(database, *totals("one"))
        assert await nothing_wrong(connection)
        identities = await connection.fetch(
            "SELECT reactive_orch.log_identity(l.name) FROM reactive_orch.logs l ORDER BY l.name"
        )
        await connection.execute(
            "TRUNCATE public.bookings RESTART IDENTITY; SELECT reactive_orch.renew_log_identity('bookings')"
        )
        now = await connection.fetch(
            "SELECT reactive_orch.log_identity(l.name) FROM reactive_orch.logs l ORDER BY l.name"
        )
        assert [was == is_ for was, is_ in zip(identities, now, strict=True)] == [False, True]
        with pytest.raises(UnsafeLog, match="totals of replica set test"):
            await run_until_idle(database, *totals("one"))
