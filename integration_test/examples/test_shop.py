"""The shop's projections, tested as their user would: with the kit of the package."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from examples.shop.projections import order_list, orders_per_customer
from reactive_orch import NewEvent
from reactive_orch.testing import call, each_split

if TYPE_CHECKING:
    from reactive_orch import Projection
    from reactive_orch.testing import Orch

TABLES = Path(__file__).parents[2] / "examples" / "shop" / "tables.sql"


@pytest.fixture(scope="session")
def orch_tables() -> Path:
    return TABLES


def order(number: str, event_type: str, customer: str = "ada") -> NewEvent:
    return NewEvent(
        aggregate_type="Order",
        aggregate_id=number,
        event_type=event_type,
        payload={"customer": customer},
        partition_key=customer,
    )


ORDERS = [
    order("4711", "OrderPlaced"),
    order("4712", "OrderPlaced", "bob"),
    order("4711", "OrderPaid"),
    order("4713", "OrderPlaced"),
    order("4711", "OrderShipped"),
]


async def test_both_read_models_are_filled(orch: Orch) -> None:
    await orch.given(ORDERS)
    assert await orch.run(orders_per_customer, order_list) == 2 * len(ORDERS)
    assert await orch.fetch("SELECT * FROM orders_per_customer ORDER BY 1") == [("ada", 2), ("bob", 1)]
    assert await orch.fetch("SELECT * FROM order_list ORDER BY 1") == [
        ("4711", "shipped"),
        ("4712", "placed"),
        ("4713", "placed"),
    ]


async def test_a_second_run_handles_what_has_come_since(orch: Orch) -> None:
    await orch.given(ORDERS[:2])
    assert await orch.run(orders_per_customer) == 2
    await orch.given(ORDERS[2:])
    assert await orch.run(orders_per_customer) == 3
    assert await orch.fetch("SELECT * FROM orders_per_customer ORDER BY 1") == [("ada", 2), ("bob", 1)]


async def test_an_order_without_a_customer_leaves_nothing_behind(orch: Orch) -> None:
    nameless = NewEvent(aggregate_type="Order", aggregate_id="4714", event_type="OrderPlaced", payload={})
    async with orch.transaction() as tx:
        with pytest.raises(KeyError, match="customer"):
            await call(orders_per_customer, [ORDERS[0], nameless], tx)
        assert await tx.fetchval("SELECT count(*) FROM orders_per_customer") == 0


@pytest.mark.parametrize("projection", [order_list, orders_per_customer], ids=lambda each: each.name)
async def test_it_does_not_matter_where_batches_end(orch: Orch, projection: Projection) -> None:
    async with orch.transaction() as tx:
        await each_split(projection, ORDERS, tx)


async def test_the_list_of_orders_bears_a_replay(orch: Orch) -> None:
    await orch.given(ORDERS)
    await orch.run(order_list)
    before = await orch.fetch("SELECT * FROM order_list ORDER BY 1")
    await orch.rewind(order_list)
    assert await orch.run(order_list) == len(ORDERS)
    assert await orch.fetch("SELECT * FROM order_list ORDER BY 1") == before
