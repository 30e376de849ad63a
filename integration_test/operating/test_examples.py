"""The examples do what their README says, by its commands."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import asyncpg

from integration_test.harness.processes import ROOT

SHOP = ROOT / "examples" / "shop"


async def _run(*arguments: str, stdin: bytes = b"") -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "reactive_orch", *arguments), cwd=ROOT, stdin=subprocess.PIPE
    )
    await process.communicate(stdin)
    assert process.returncode == 0


async def test_the_shop_ends_with_its_read_models(database: str) -> None:
    connection = await asyncpg.connect(database)
    await connection.execute((SHOP / "tables.sql").read_text())
    await _run("append", "--database-url", database, stdin=(SHOP / "events.jsonl").read_bytes())
    projections = ("--projection", "examples.shop.projections")
    await _run(
        "--database-url", database, "--replica-set", "shop", *projections, "--http", "127.0.0.1:0", "--until-idle"
    )
    orders = await connection.fetch("SELECT customer, orders FROM orders_per_customer ORDER BY customer")
    states = await connection.fetch("SELECT order_id, state FROM order_list ORDER BY order_id")
    await connection.close()
    assert [tuple(row) for row in orders] == [("ada", 2), ("bob", 1)]
    assert [tuple(row) for row in states] == [("4711", "shipped"), ("4712", "placed"), ("4713", "placed")]
