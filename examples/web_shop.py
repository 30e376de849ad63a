"""A web application whose process handles events, too: when its worker fails for good, the process ends with it.

    PORT=8000 python -m examples.web_shop

The worker runs while the block of `running` does. A signal ends both; so does the worker's failure: the pages would go
on showing what is not brought up to date any more.
"""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import asyncpg
from aiohttp import web

from examples.common import prepared, run
from examples.shop.projections import order_list, orders_per_customer
from reactive_orch import Config, Node, Worker, running
from reactive_orch.http.routes import health_routes


def application(worker: Worker, pool: asyncpg.Pool[asyncpg.Record]) -> web.Application:
    """Return the pages: a customer's orders, and the health of the worker beside them."""

    async def orders(request: web.Request) -> web.Response:
        customer = request.match_info["customer"]
        number = await pool.fetchval("SELECT orders FROM orders_per_customer WHERE customer = $1", customer)
        return web.json_response({"customer": customer, "orders": number or 0})

    app = web.Application()
    app.router.add_get("/customers/{customer}", orders)
    app.add_routes(health_routes(worker))
    return app


async def serve(app: web.Application, port: int, stop: asyncio.Event) -> None:
    """Serve until asked to stop, or until cancelled."""
    runner = web.AppRunner(app, handle_signals=False)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", port).start()
        print(f"http://127.0.0.1:{runner.addresses[0][1]}", flush=True)
        await stop.wait()
    finally:
        await runner.cleanup()


async def main() -> None:
    """Serve pages and handle events until a signal; a worker that fails for good sends one itself."""
    url = await prepared(Path(__file__).parent / "shop" / "tables.sql")
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    worker = Worker(Node(Config(database_url=url)), "shop", [orders_per_customer, order_list])
    async with asyncpg.create_pool(url) as pool, running(worker):
        await serve(application(worker, pool), int(os.environ.get("PORT", "8000")), stop)


if __name__ == "__main__":
    run(main)  # the first error of them all in one line, and the exit code of its kind
