"""Projections that the tests' worker processes run; each records what it handled, who did, and in which order.

Import one by `--projection integration_test.harness.projections:NAME`; `WorkerProcess` does, and sets the variables.
"""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING, TypeAlias

import anyio

from reactive_orch import Event, Projection, projection

if TYPE_CHECKING:
    from collections.abc import Sequence

    import asyncpg

    Connection: TypeAlias = asyncpg.Connection[asyncpg.Record]

WORKER = "REACTIVE_ORCH_TEST_WORKER"
"""Variable: the worker's name in the table."""
REPLICA_SET = "REACTIVE_ORCH_TEST_REPLICA_SET"
"""Variable: its replica set there; default `test`."""
SLEEP = "REACTIVE_ORCH_TEST_SLEEP"
"""Variable: seconds per event of `handled_slowly`; default 0.05."""
CURED = "REACTIVE_ORCH_TEST_CURED"
"""Variable: if set, `failing` does not fail any more."""

GROUP = "REACTIVE_ORCH_TEST_GROUP"
"""Variable: the group of those that a storm has; default none."""
_group = os.environ.get(GROUP) or None

POISON = "Poison"
"""The type of event that `failing` fails at."""

LETHAL = "Lethal"
"""The type of event that `lethal` ends its process at."""

DEADLY = 42
"""The exit code of a process that `deadly` or `lethal` has ended."""

ENDED_BY = "ended by the event at position "
"""What `lethal` says then."""

GATE = 4242
"""Advisory lock: while a test holds it, `handled_at_gate` waits at each event. Its batch is in flight then."""

# No constraint: handling an event twice must leave two rows. `id` is drawn while the batch holds the checkpoint's row,
# and rows of a partition are only written under it, so `id` is their true order, whatever the clock says.
_CREATE = """
CREATE TABLE public.handled (
    id          bigint      GENERATED ALWAYS AS IDENTITY,
    replica_set text        NOT NULL,
    projection  text        NOT NULL,
    worker      text        NOT NULL,
    position    bigint      NOT NULL,
    partition   smallint    NOT NULL,
    key         text        NOT NULL,
    version     bigint      NOT NULL,
    txid        bigint      NOT NULL DEFAULT pg_current_xact_id()::text::bigint,
    at          timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX ON public.handled (position, projection);

CREATE TABLE public.cure (found boolean);

CREATE TABLE public.antidote (found boolean);
-- Whoever has looked for it has ended, one way or the other, when it is there.
CREATE FUNCTION public.take_antidote() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    LOCK TABLE public.antidote IN ACCESS EXCLUSIVE MODE;
    INSERT INTO public.antidote VALUES (true);
END $$;

-- So few customers that batches of several workers meet in their rows.
CREATE TABLE public.balances (customer bigint PRIMARY KEY, amount bigint NOT NULL);

CREATE FUNCTION public.parties(place bigint, OUT giver bigint, OUT taker bigint)
LANGUAGE sql IMMUTABLE AS $$ SELECT place * 7 % 12, (place * 7 + 1 + place % 11) % 12 $$;

CREATE VIEW public.fates AS
SELECT h.replica_set, h.projection, h.position, 'handled' AS fate FROM public.handled h
UNION ALL
SELECT k.replica_set, k.projection, d.position, 'waits'
FROM reactive_orch.dead_letters d JOIN reactive_orch.failing_keys k ON k.id = d.key
UNION ALL
SELECT x.replica_set, x.projection, x.position, 'left out' FROM reactive_orch.discarded_events x;
"""

_INSERT = """
INSERT INTO public.handled (replica_set, projection, worker, position, partition, key, version)
VALUES ($1, $2, $3, $4, $5, $6, $7)
"""

_INSERT_MANY = """
INSERT INTO public.handled (replica_set, projection, worker, position, partition, key, version)
SELECT $1, $2, $3, e.position, e.partition, e.key, e.version
FROM unnest($4::bigint[], $5::smallint[], $6::text[], $7::bigint[]) AS e(position, partition, key, version)
ORDER BY e.position
"""


# In no order that two batches would have in common.
_MOVE = """
INSERT INTO public.balances
SELECT CASE WHEN $1 < 0 THEN p.giver ELSE p.taker END, $1::bigint FROM public.parties(abs($1::bigint)) p
ON CONFLICT (customer) DO UPDATE SET amount = balances.amount + excluded.amount
"""


def variables(worker: str, replica_set: str) -> dict[str, str]:
    """Return what a worker's environment says for its records."""
    return {WORKER: worker, REPLICA_SET: replica_set}


async def create_tables(connection: Connection) -> None:
    """Create what the projections write to."""
    await connection.execute(_CREATE)


async def record(tx: Connection, name: str, event: Event, *, replica_set: str = "", worker: str = "") -> None:
    """Write down that an event was handled; replica set and worker are those of the environment unless given."""
    await tx.execute(
        _INSERT,
        replica_set or os.environ.get(REPLICA_SET, "test"),
        name,
        worker or os.environ.get(WORKER, "?"),
        event.global_position,
        event.partition,
        event.aggregate_id,
        event.aggregate_version,
    )


def recorder(name: str, *, replica_set: str = "", worker: str = "") -> Projection:
    """Return a projection of any name that records each event; for workers inside the test's own process."""

    @projection(name, group=_group)
    async def recorded(event: Event, tx: Connection) -> None:
        await record(tx, name, event, replica_set=replica_set, worker=worker)

    return recorded


handled = recorder("handled")
handled_too = recorder("handled_too")


async def record_many(tx: Connection, name: str, events: Sequence[Event]) -> None:
    """Write down that these events were handled."""
    await tx.execute(
        _INSERT_MANY,
        os.environ.get(REPLICA_SET, "test"),
        name,
        os.environ.get(WORKER, "?"),
        [event.global_position for event in events],
        [event.partition for event in events],
        [event.aggregate_id for event in events],
        [event.aggregate_version for event in events],
    )


@projection("handled_in_batches", batch=True, group=_group)
async def handled_in_batches(events: Sequence[Event], tx: Connection) -> None:
    await record_many(tx, "handled_in_batches", events)


@projection("handled_slowly")
async def handled_slowly(event: Event, tx: Connection) -> None:
    await record(tx, "handled_slowly", event)
    await anyio.sleep(float(os.environ.get(SLEEP, "0.05")))


@projection("handled_without_awaiting")
async def handled_without_awaiting(event: Event, tx: Connection) -> None:
    await record(tx, "handled_without_awaiting", event)
    time.sleep(0.7)  # noqa: ASYNC251 - that is the case


@projection("handled_at_gate")
async def handled_at_gate(event: Event, tx: Connection) -> None:
    await record(tx, "handled_at_gate", event)
    await tx.execute("SELECT pg_advisory_xact_lock_shared($1)", GATE)


@projection("failing")
async def failing(event: Event, tx: Connection) -> None:
    await record(tx, "failing", event)
    if event.event_type == POISON and CURED not in os.environ:
        # The table forgets the attempt: that is the point. Standard error remembers it.
        sys.stderr.write(f"attempt at position {event.global_position}, {time.monotonic():.6f} s\n")
        msg = "this event is poison"
        raise RuntimeError(msg)


@projection("poisoned", group=_group)
async def poisoned(event: Event, tx: Connection) -> None:
    """Fail at poison until there is a row in `cure`."""
    await record(tx, "poisoned", event)
    if event.event_type == POISON and not await tx.fetchval("SELECT count(*) FROM public.cure"):
        msg = "this event is poison"
        raise RuntimeError(msg)


@projection("sharing", batch=True, group=_group)
async def sharing(events: Sequence[Event], tx: Connection) -> None:
    """Move amounts from one customer's balance to another's: events of any keys write the same rows, in any order."""
    await record_many(tx, "sharing", events)
    amounts = [event.global_position for event in events]
    await tx.executemany(_MOVE, [(sign * amount,) for amount in amounts for sign in (-1, 1)])


@projection("deadly")
async def deadly(event: Event, tx: Connection) -> None:
    """End the process at poison until there is a row in `cure`."""
    await record(tx, "deadly", event)
    if event.event_type == POISON and not await tx.fetchval("SELECT count(*) FROM public.cure"):
        os._exit(DEADLY)


@projection("deadly_in_batches", batch=True)
async def deadly_in_batches(events: Sequence[Event], tx: Connection) -> None:
    """Do the same with a whole batch."""
    for event in events:
        await record(tx, "deadly_in_batches", event)
        if event.event_type == POISON and not await tx.fetchval("SELECT count(*) FROM public.cure"):
            os._exit(DEADLY)


@projection("lethal")
async def lethal(event: Event, tx: Connection) -> None:
    """End the process at a lethal event until there is a row in `antidote`, and tell which event it was."""
    await record(tx, "lethal", event)
    if event.event_type == LETHAL and not await tx.fetchval("SELECT count(*) FROM public.antidote"):
        sys.stdout.write(f"{ENDED_BY}{event.global_position}\n")
        sys.stdout.flush()
        os._exit(DEADLY)


@projection("filtered", aggregate_types=["Order"])
async def orders(event: Event, tx: Connection) -> None:
    await record(tx, "filtered", event)


@projection("filtered", aggregate_types=["Order", "Invoice"])
async def orders_and_invoices(event: Event, tx: Connection) -> None:
    await record(tx, "filtered", event)


async def empty(tx: Connection) -> None:
    await tx.execute("TRUNCATE handled")


async def fail_to_empty(tx: Connection) -> None:
    await empty(tx)
    msg = "cannot empty it"
    raise LookupError(msg)


@projection("resettable", reset=empty)
async def resettable(event: Event, tx: Connection) -> None:
    await record(tx, "resettable", event)


@projection("resettable", reset=fail_to_empty)
async def hardly_resettable(event: Event, tx: Connection) -> None:
    await record(tx, "resettable", event)


@projection("handled", event_types=["Paid"])
async def paid_only(event: Event, tx: Connection) -> None:
    await record(tx, "handled", event)
