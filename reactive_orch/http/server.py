"""Health and metrics over HTTP, answered from memory: no such request touches the database. And the page, which looks.

/livez     200 unless only a restart would help; the database and the lag do not count
/readyz    200 while the worker takes part: it serves, stands by, or rebalances within its time
/healthz   200 while nothing needs a person; `core.health` has the table
/metrics   200, as text or as OpenMetrics

`http.page` has the rest.
"""

from __future__ import annotations

import contextlib
import errno
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

import anyio
from aiohttp import web

from reactive_orch.errors import ConfigError
from reactive_orch.http.answers import answers
from reactive_orch.http.routes import routes

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from anyio.abc import TaskGroup

    from reactive_orch.http.answers import Judge, Measure
    from reactive_orch.http.page import StatusPage

PORT_DEFAULT = 8080
PORTS_TRIED = 100
SHUTDOWN_TIMEOUT_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Pages:
    """What the pages say, from memory."""

    health: Judge
    metrics: Measure | None
    """None: there is no such page."""
    status: StatusPage | None = None
    """The one for people. None: there is none."""


@contextlib.asynccontextmanager
async def serving(pages: Pages, host: str, port: int | None) -> AsyncIterator[str]:
    """Serve while the block runs; yields the base URL. `port` None: 8080, or the next free one.

    Raises ConfigError when the address cannot be used.
    """
    async with anyio.create_task_group() as tasks:
        app = _app(pages, tasks)
        runner = web.AppRunner(app, handle_signals=False, access_log=None, shutdown_timeout=SHUTDOWN_TIMEOUT_S)
        await runner.setup()
        try:
            bound = await _bind(runner, host, port)
            yield f"http://{_shown(host)}:{bound}"
        finally:
            tasks.cancel_scope.cancel()
            with anyio.move_on_after(2 * SHUTDOWN_TIMEOUT_S, shield=True):
                await runner.cleanup()


def _shown(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _app(pages: Pages, tasks: TaskGroup) -> web.Application:
    app = web.Application()
    app.add_routes(routes(answers(pages.health, pages.metrics)))
    if pages.status is not None:
        pages.status.add_to(app, tasks)
    return app


def _why(error: OSError) -> str:
    """Return what hinders it. asyncio's own words repeat the address; of an unknown name there is no number."""
    # Since Python 3.13 there is none either of an address that is not this machine's.
    number = errno.EADDRNOTAVAIL if error.errno is None else error.errno
    return os.strerror(number) if number > 0 else str(error.strerror)


async def _bind(runner: web.AppRunner, host: str, port: int | None) -> int:
    candidates = [port] if port is not None else range(PORT_DEFAULT, PORT_DEFAULT + PORTS_TRIED)
    for candidate in candidates:
        try:
            await web.TCPSite(runner, host, candidate).start()
        except OSError as error:
            if error.errno == errno.EADDRINUSE and port is None:
                continue
            msg = f"--http {_shown(host)}:{candidate} cannot be served: {_why(error)}"
            raise ConfigError(msg) from error
        return int(runner.addresses[0][1])
    msg = f"no free port from {PORT_DEFAULT} to {PORT_DEFAULT + PORTS_TRIED - 1} on {host}: give one with --http"
    raise ConfigError(msg)
