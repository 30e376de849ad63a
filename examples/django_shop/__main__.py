"""A web process of Django, and a worker.

python -m examples.django_shop      # PORT=8000; then, elsewhere:
curl -X POST localhost:8000/customers/ada/orders/4711
curl localhost:8000/orders
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING
from wsgiref.simple_server import make_server

from django.core.wsgi import get_wsgi_application

from examples.common import prepared, run

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

WORKER = "--replica-set", "django", "--projection", "examples.django_shop.projections", "--http", "127.0.0.1:0"


@contextlib.asynccontextmanager
async def worker() -> AsyncIterator[None]:
    """Run a worker, a process of its own as in earnest, for as long as the block."""
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "reactive_orch", *WORKER)
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):  # Ctrl-C has reached it, too
            process.terminate()
        await process.wait()


@contextlib.asynccontextmanager
async def web(port: int) -> AsyncIterator[int]:
    """Serve Django's pages, in a thread, for as long as the block; it is given the port."""
    with make_server("127.0.0.1", port, get_wsgi_application()) as server:
        serving = asyncio.create_task(asyncio.to_thread(server.serve_forever))
        try:
            yield server.server_port
        finally:
            server.shutdown()
            await serving


async def main() -> None:
    """Serve until Ctrl-C or SIGTERM."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    os.environ["DATABASE_URL"] = await prepared(Path(__file__).with_name("tables.sql"))
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "examples.django_shop.settings")
    async with worker(), web(int(os.environ.get("PORT", "8000"))) as port:
        print(__doc__, flush=True)
        print(f"http://127.0.0.1:{port}", flush=True)
        await stop.wait()


if __name__ == "__main__":
    run(main)
