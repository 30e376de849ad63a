"""What the measured workers run."""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

from reactive_orch import Event, Projection, projection

if TYPE_CHECKING:
    from collections.abc import Sequence

INSERT_ONE = "INSERT INTO public.bench_effects VALUES ($1, $2)"
INSERT_MANY = "INSERT INTO public.bench_effects SELECT * FROM unnest($1::bigint[], $2::text[])"
RECORD = (
    "INSERT INTO public.bench_handled (position, partition, worker, created_at) "
    "SELECT p, q, $4, c FROM unnest($1::bigint[], $2::smallint[], $3::timestamptz[]) AS s(p, q, c)"
)
COUNT_ONE = (
    "INSERT INTO public.bench_balances VALUES ($1, 1) "
    "ON CONFLICT (customer) DO UPDATE SET events = bench_balances.events + 1"
)
COUNT_MANY = (
    "INSERT INTO public.bench_balances SELECT * FROM unnest($1::text[], $2::bigint[]) "
    "ON CONFLICT (customer) DO UPDATE SET events = bench_balances.events + excluded.events"
)
WORKER = f"w{os.getpid()}"
WAIT_S = 0.05

called: dict[int, int] = {}
"""Position → when `clock` was called with it, by the system-wide monotonic clock, in nanoseconds."""
seen = {"events": 0, "first_ns": 0}


def _saw(events: int) -> None:
    if not seen["events"]:
        seen["first_ns"] = time.monotonic_ns()
    seen["events"] += events


@projection("noop_batch", batch=True)
async def noop_batch(events: Sequence[Event], tx: Any) -> None:  # noqa: ARG001
    """Do nothing with many."""
    _saw(len(events))


@projection("noop_each")
async def noop_each(event: Event, tx: Any) -> None:  # noqa: ARG001
    """Do nothing with each."""
    _saw(1)


@projection("insert_batch", batch=True)
async def insert_batch(events: Sequence[Event], tx: Any) -> None:
    """Insert a row for each of many, in one statement."""
    _saw(len(events))
    await tx.execute(INSERT_MANY, [e.global_position for e in events], [e.aggregate_id for e in events])


@projection("insert_each")
async def insert_each(event: Event, tx: Any) -> None:
    """Insert a row for each, one by one."""
    _saw(1)
    await tx.execute(INSERT_ONE, event.global_position, event.aggregate_id)


@projection("clock")
async def clock(event: Event, tx: Any) -> None:
    """Note the time, then write."""
    called[event.global_position] = time.monotonic_ns()
    await tx.execute(INSERT_ONE, event.global_position, event.aggregate_id)


@projection("record", batch=True)
async def record(events: Sequence[Event], tx: Any) -> None:
    """Record who handled what, and when."""
    await _record(events, tx)


@projection("wait_and_record", batch=True)
async def wait_and_record(events: Sequence[Event], tx: Any) -> None:
    """Wait as if for another service, so that workers rather than cores are what there is too little of."""
    await asyncio.sleep(WAIT_S)
    await _record(events, tx)


async def _record(events: Sequence[Event], tx: Any) -> None:
    await tx.execute(
        RECORD,
        [e.global_position for e in events],
        [e.partition for e in events],
        [e.created_at for e in events],
        WORKER,
    )


@projection("balance_each")
async def balance_each(event: Event, tx: Any) -> None:
    """Count an event of a customer in the customer's row."""
    await tx.execute(COUNT_ONE, event.json()["customer"])


@projection("balance_batch", batch=True)
async def balance_batch(events: Sequence[Event], tx: Any) -> None:
    """Count the events of each customer, in the order in which the customers come."""
    counts = Counter(event.json()["customer"] for event in events)
    await tx.execute(COUNT_MANY, list(counts), list(counts.values()))


@projection("balance_sorted", batch=True)
async def balance_sorted(events: Sequence[Event], tx: Any) -> None:
    """Count them in the order of the rows: whoever does so waits for others, and they never for him."""
    counts = sorted(Counter(event.json()["customer"] for event in events).items())
    await tx.execute(COUNT_MANY, *map(list, zip(*counts, strict=True)))


def failing(name: str, keys: int, statement: str | None, **policy: Any) -> Projection:
    """Return one that fails at the broken events of the first so many orders, or, below 0, of anything."""

    async def handler(event: Event, tx: Any) -> None:
        _saw(1)
        if event.event_type == "Broken" and (keys < 0 or int(event.aggregate_id.partition("-")[2]) < keys):
            raise ValueError
        if statement is not None:
            await tx.execute(statement, event.global_position, event.aggregate_id)

    return projection(name, **policy)(handler)


failing_noop_0, failing_noop_1, failing_noop_100 = (failing("failing", n, None, retries=0) for n in (0, 1, 100))
failing_insert_0, failing_insert_1, failing_insert_100 = (
    failing("failing", n, INSERT_ONE, retries=0) for n in (0, 1, 100)
)
failing_noop_poisoned = failing("failing", -1, None, retries=2)
failing_insert_poisoned = failing("failing", -1, INSERT_ONE, retries=2)


def several(count: int) -> list[Projection]:
    """Return that many that do nothing."""
    return [projection(f"several_{n}", batch=True)(noop_batch.handler) for n in range(count)]


several_0, several_1, several_2, several_3, several_4 = several(5)
several_5, several_6, several_7, several_8, several_9 = several(10)[5:]


def many(name: str, count: int, group: str | None) -> dict[str, Projection]:
    """Return that many that note when they were called."""

    async def called_at(event: Event, tx: Any) -> None:  # noqa: ARG001
        called.setdefault(event.global_position, time.monotonic_ns())

    return {f"{name}_{n}": projection(f"{name}_{n}", group=group)(called_at) for n in range(count)}


MANY = 50
globals().update(many("apart", MANY, None))
globals().update(many("together", MANY, "read-models"))
