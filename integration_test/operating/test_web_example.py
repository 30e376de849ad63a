"""The example of a web application that handles events: its process ends when its worker does, and says why."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from typing import TYPE_CHECKING, Any

import aiohttp
import asyncpg
import pytest

from integration_test.harness.processes import ROOT, Process
from integration_test.harness.waiting import wait_until
from reactive_orch import NewEvent, append

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

SEQUENCE = "reactive_orch.events_global_position_seq"


@contextlib.asynccontextmanager
async def shop(url: str) -> AsyncIterator[Process]:
    """Run the example."""
    process = Process("web_shop", [sys.executable, "-m", "examples.web_shop"], {"DATABASE_URL": url, "PORT": "0"})
    try:
        yield await process.start()
    finally:
        await process.end()


async def page(base: str, path: str) -> tuple[int, Any]:
    async with aiohttp.ClientSession() as session, session.get(f"{base}/{path}") as response:
        return response.status, await response.json()


async def test_it_serves_what_it_has_handled_and_ends_cleanly(database: str) -> None:
    connection = await asyncpg.connect(database)
    await connection.execute((ROOT / "examples/shop/tables.sql").read_text())
    async with shop(database) as process:
        base = (await process.said(r"http://\S+"))[0]
        order = NewEvent(
            aggregate_type="Order", aggregate_id="1", event_type="OrderPlaced", payload={"customer": "ada"}
        )
        async with connection.transaction():
            await append(connection, [order])

        async def counted() -> bool:
            return await page(base, "customers/ada") == (200, {"customer": "ada", "orders": 1})

        await wait_until(counted)
        status, health = await page(base, "healthz")
        (of_worker,) = health["workers"]
        assert (status, health["health"], of_worker["problems"]) == (200, "ok", [])
        os.kill(process.pid, signal.SIGTERM)
        assert await process.wait() == 0
    await connection.close()
    assert not [line for line in process.log if "Traceback" in line]


async def test_a_worker_that_cannot_go_on_ends_it(database: str) -> None:
    """Nothing else of the process is concerned: its node and its pages could go on for ever."""
    connection = await asyncpg.connect(database)
    await connection.execute((ROOT / "examples/shop/tables.sql").read_text())
    async with shop(database) as process:
        base = (await process.said(r"http://\S+"))[0]

        async def well() -> bool:
            return bool((await page(base, "healthz"))[1]["workers"][0]["status"] == "serving")

        await wait_until(well)
    await connection.execute("DELETE FROM reactive_orch.checkpoints WHERE projection = 'order_list'")
    async with shop(database) as process:
        assert await process.wait() == 2
    await connection.close()
    assert process.log[-1].startswith("reactive_orch: ")
    assert "order_list" in process.log[-1]
    assert not [line for line in process.log if "Traceback" in line]


@pytest.mark.parametrize("when", ["at the start", "while it serves"])
async def test_a_log_that_cannot_be_read_ends_it(database: str, when: str) -> None:
    connection = await asyncpg.connect(database)
    await connection.execute((ROOT / "examples/shop/tables.sql").read_text())
    breaking = f"ALTER SEQUENCE {SEQUENCE} CACHE 20"
    if when == "at the start":
        await connection.execute(breaking)
    async with shop(database) as process:
        if when != "at the start":
            await process.said(r"http://\S+")
            await connection.execute(breaking)
        assert await process.wait() == 2
    await connection.close()
    (line,) = [line for line in process.log if line.startswith("reactive_orch: ")]
    assert f"run ALTER SEQUENCE {SEQUENCE} CACHE 1" in line
    assert process.log[-1] == line
    assert not [line for line in process.log if "Traceback" in line]
