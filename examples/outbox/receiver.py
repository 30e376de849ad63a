"""The other side: an HTTP endpoint that acts on each idempotency key once, however often it is asked."""

from __future__ import annotations

import contextlib
import sqlite3
from typing import TYPE_CHECKING

from aiohttp import web

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


class Receiver:
    """Its deeds are in a file: whoever forgets keys at a restart acts twice."""

    def __init__(self, file: Path | str) -> None:
        """Open the file, `:memory:` for none."""
        self._database = sqlite3.connect(file)
        self._database.execute("CREATE TABLE IF NOT EXISTS deeds (key TEXT PRIMARY KEY, body TEXT)")

    @property
    def deeds(self) -> list[str]:
        """The keys, as often as it has acted."""
        return [key for (key,) in self._database.execute("SELECT key FROM deeds")]

    async def take(self, request: web.Request) -> web.Response:
        """Act, unless that was done; key and deed are one transaction. Whoever repeats himself is told: all is well."""
        key, body = request.headers["Idempotency-Key"], await request.text()
        with self._database:
            done = self._database.execute("INSERT INTO deeds VALUES (?, ?) ON CONFLICT DO NOTHING", (key, body))
        print(f"receiver: {key} {'done' if done.rowcount else 'was done already'}", flush=True)
        return web.Response(status=201 if done.rowcount else 200)


@contextlib.asynccontextmanager
async def serving(application: web.Application) -> AsyncIterator[str]:
    """Serve at a free port while the block lasts; what it is given is the address."""
    runner = web.AppRunner(application, handle_signals=False)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()
