"""The shop's events, appended and handled by one process: python -m examples.shop."""

from __future__ import annotations

import json
from pathlib import Path

import asyncpg

from examples.common import prepared, run
from examples.shop.projections import order_list, orders_per_customer
from reactive_orch import Config, NewEvent, Node, Worker, append

FOLDER = Path(__file__).parent


async def main() -> None:
    """Append, handle until there is nothing left, and show the read models."""
    url = await prepared(FOLDER / "tables.sql")
    connection = await asyncpg.connect(url)
    lines = (FOLDER / "events.jsonl").read_text(encoding="utf-8").splitlines()
    await append(connection, [NewEvent(**json.loads(line)) for line in lines])

    async with Node(Config(database_url=url)) as node:
        await Worker(node, "shop", [orders_per_customer, order_list], until_idle=True).run()

    for customer, orders in await connection.fetch("SELECT customer, orders FROM orders_per_customer ORDER BY 1"):
        print(f"{customer} has placed {orders} orders")
    for order, state in await connection.fetch("SELECT order_id, state FROM order_list ORDER BY 1"):
        print(f"order {order} is {state}")
    await connection.close()


if __name__ == "__main__":
    run(main)
