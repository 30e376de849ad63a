"""Partition keys: what shares one is handled in order, one after the other, and waits together behind a failure."""

from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING

import pytest

from integration_test.harness.checkers import wait_accounted
from integration_test.harness.command_line import run
from integration_test.harness.connections import prepared
from integration_test.harness.findings import found
from integration_test.harness.in_process import run_until_idle, serving
from integration_test.harness.projections import record
from integration_test.harness.waiting import wait_until
from reactive_orch import Event, NewEvent, append, projection, read_stream
from reactive_orch.model.keys import Key, WantedKeys
from reactive_orch.postgres import dead_letters

if TYPE_CHECKING:
    from collections.abc import Callable

    from integration_test.harness.connections import Connection

CUSTOMERS = 5


def of_customer(customer: int, order: int, event_type: str = "Placed", aggregate_type: str = "Order") -> NewEvent:
    return NewEvent(
        aggregate_type=aggregate_type,
        aggregate_id=f"{aggregate_type} {order}",
        event_type=event_type,
        partition_key=f"customer {customer}",
    )


@pytest.mark.each_server
async def test_what_shares_a_key_shares_a_partition_and_is_handled_in_order(database: str) -> None:
    seen: dict[str | None, list[int]] = {}
    partitions: dict[str | None, set[int]] = {}
    dice = random.Random(1)

    @projection("handled")
    async def handled(event: Event, tx: Connection) -> None:
        seen.setdefault(event.partition_key, []).append(event.global_position)
        partitions.setdefault(event.partition_key, set()).add(event.partition)
        await record(tx, "handled", event)

    async with prepared(database) as connection:
        for n in range(200):
            await append(connection, [of_customer(dice.randrange(CUSTOMERS), n)])
        await append(
            connection, [NewEvent(aggregate_type="Order", aggregate_id=f"{n}", event_type="Placed") for n in range(50)]
        )
        async with serving(database, handled):
            await wait_accounted(connection)
        assert len(partitions.pop(None)) > CUSTOMERS, "those without a key go by their aggregates"
        assert partitions.keys() == {f"customer {n}" for n in range(CUSTOMERS)}
        assert all(len(each) == 1 for each in partitions.values()), partitions
        del seen[None]
        assert all(positions == sorted(positions) for positions in seen.values())
        (first,) = await read_stream(connection, "Order", "Order 0")
        assert first.partition_key in seen
        wrong = await connection.fetch(
            "SELECT FROM reactive_orch.events e "
            "WHERE e.partition <> hashtextextended(coalesce(e.partition_key, e.aggregate_id), 0) & 63"
        )
        assert not wrong


async def test_a_failing_event_holds_up_its_partition_key_across_aggregates_and_nothing_else(database: str) -> None:
    well = False

    @projection("handled")
    async def handled(event: Event, tx: Connection) -> None:
        await record(tx, "handled", event)
        if event.event_type == "Bad" and not well:
            raise LookupError

    async with prepared(database) as connection:
        # Without a key, an aggregate of the id that is a key elsewhere: in the same partition, but another key.
        alike = NewEvent(aggregate_type="Order", aggregate_id="customer 1", event_type="Placed")
        await append(
            connection,
            [
                of_customer(1, 1),
                of_customer(1, 2, "Bad"),
                of_customer(1, 3),
                of_customer(1, 3, aggregate_type="Invoice"),
                of_customer(2, 4),
                alike,
            ],
        )
        await run_until_idle(database, handled, retries=0)
        done = await connection.fetch("SELECT key FROM public.handled ORDER BY position")
        assert [row["key"] for row in done] == ["Order 1", "Order 4", "customer 1"]
        (key,) = await dead_letters.listed(connection, WantedKeys("test"))
        assert key.key == Key("", "", "customer 1")
        assert (key.events, key.first_position) == (3, 2)

        of = ("--replica-set", "test", "--database-url", database)
        (listed,) = json.loads((await run("dead-letters", "list", "--json", *of)).done())
        assert (listed["context"], listed["type"], listed["key"]) == (None, None, "customer 1")
        assert " customer 1 " in (await run("dead-letters", "list", *of)).done()
        well = True
        async with serving(database, handled):
            acting = ("--projection", "handled", "--key", "customer 1", "--wait")
            (await run("dead-letters", "retry", *acting, *of)).done()
        done = await connection.fetch("SELECT key FROM public.handled ORDER BY id")
        assert [row["key"] for row in done][3:] == ["Order 2", "Order 3", "Invoice 3"]


async def test_an_event_that_comes_later_waits_behind_its_partition_key(database: str) -> None:
    @projection("handled")
    async def handled(event: Event, tx: Connection) -> None:
        await record(tx, "handled", event)
        if event.event_type == "Bad":
            raise LookupError

    async with prepared(database) as connection, serving(database, handled, retries=0):
        await append(connection, [of_customer(1, 1, "Bad")])
        await wait_accounted(connection)
        await append(connection, [of_customer(1, 2), of_customer(2, 3)])
        await wait_accounted(connection)

        async def both_wait() -> bool:
            return [key.events for key in await dead_letters.listed(connection, WantedKeys("test"))] == [2]

        await wait_until(both_wait)
        assert [row["key"] for row in await connection.fetch("SELECT key FROM public.handled")] == ["Order 3"]


async def test_partition_keys_that_are_forgotten_are_caught(database: str, plant: Callable[[str], None]) -> None:
    plant("partition_keys_forgotten")
    with found():
        await test_a_failing_event_holds_up_its_partition_key_across_aggregates_and_nothing_else(database)
