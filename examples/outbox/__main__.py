"""Issues three invoices and posts them: python -m examples.outbox.

To a receiver of its own, or to yours: ENDPOINT=http://… python -m examples.outbox
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

import aiohttp
import asyncpg
from aiohttp import web

from examples.common import prepared, run
from examples.outbox.receiver import Receiver, serving
from examples.outbox.relay import issue, relay
from reactive_orch import Config, Node, Worker

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@contextlib.asynccontextmanager
async def endpoint() -> AsyncIterator[str]:
    """Give the block the address of ENDPOINT, or of a receiver that lives as long as the block."""
    if "ENDPOINT" in os.environ:
        yield os.environ["ENDPOINT"]
        return
    application = web.Application()
    application.router.add_post("/", Receiver(":memory:").take)
    async with serving(application) as url:
        yield url


async def main() -> None:
    """Issue, and post until there is nothing left."""
    url = await prepared(Path(__file__).with_name("tables.sql"))
    connection = await asyncpg.connect(url)
    for cents in (1200, 500, 9900):
        print(f"issued {await issue(connection, cents)}", flush=True)
    await connection.close()

    config = Config(database_url=url, batch_events=1)
    async with endpoint() as address, aiohttp.ClientSession() as http, Node(config) as node:
        worker = Worker(node, "outbox", [relay(http, address)], until_idle=True)
        await worker.run()
        print(f"posted {sum(worker.events_handled.values())} events")


if __name__ == "__main__":
    run(main)
