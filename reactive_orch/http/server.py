"""Health over HTTP, answered from memory: no request touches the database.

/livez     200 while the event loop runs: only a restart would help otherwise
/readyz    200 while the worker serves or stands by
/healthz   the same, with what it is doing as JSON
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import anyio
from aiohttp import web

from reactive_orch.errors import ConfigError

PORT_DEFAULT = 8080
PORTS_TRIED = 100
SHUTDOWN_TIMEOUT_S = 1.0

Health = Callable[[], tuple[bool, Mapping[str, Any]]]
"""Returns whether all is well, and the body."""


@contextlib.asynccontextmanager
async def serving(health: Health, host: str, port: int | None) -> AsyncIterator[str]:
    """Serve while the block runs; yields the base URL. `port` None: 8080, or the next free one.

    Raises ConfigError when the address cannot be used.
    """
    runner = web.AppRunner(_app(health), handle_signals=False, access_log=None, shutdown_timeout=SHUTDOWN_TIMEOUT_S)
    await runner.setup()
    try:
        bound = await _bind(runner, host, port)
        shown = f"[{host}]" if ":" in host else host
        yield f"http://{shown}:{bound}"
    finally:
        with anyio.move_on_after(2 * SHUTDOWN_TIMEOUT_S, shield=True):
            await runner.cleanup()


def _app(health: Health) -> web.Application:
    async def livez(_request: web.Request) -> web.Response:
        return web.json_response({"status": "alive"})

    async def healthz(_request: web.Request) -> web.Response:
        well, body = health()
        return web.json_response(body, status=200 if well else 503)

    app = web.Application()
    app.router.add_get("/livez", livez)
    app.router.add_get("/readyz", healthz)
    app.router.add_get("/healthz", healthz)
    return app


async def _bind(runner: web.AppRunner, host: str, port: int | None) -> int:
    candidates = [port] if port is not None else range(PORT_DEFAULT, PORT_DEFAULT + PORTS_TRIED)
    for candidate in candidates:
        try:
            await web.TCPSite(runner, host, candidate).start()
        except OSError as error:
            if error.errno == errno.EADDRINUSE and port is None:
                continue
            msg = f"--http {host}:{candidate} cannot be served: {error.strerror or error}"
            raise ConfigError(msg) from error
        return int(runner.addresses[0][1])
    msg = f"no free port from {PORT_DEFAULT} to {PORT_DEFAULT + PORTS_TRIED - 1} on {host}: give one with --http"
    raise ConfigError(msg)
