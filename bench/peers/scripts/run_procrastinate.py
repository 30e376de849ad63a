"""procrastinate: a task queue. Tasks side by side in a worker, a pool of one connection more, stalled jobs retried."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

from procrastinate import App, JobContext, PsycopgConnector
from protocol import EFFECT, PID, Script
from psycopg_pool import AsyncConnectionPool

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from protocol import Put

CONCURRENCY = 10
ONE = EFFECT.format("%s", "%s")
NEWEST = "SELECT max(id) AS id FROM procrastinate_workers"


class Procrastinate(Script):
    """Jobs that stay in their table, marked as succeeded."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._app = App(connector=PsycopgConnector(conninfo=url, min_size=1, max_size=CONCURRENCY + 1))
        self._task = self._app.task(name="order_placed")(self._handle)
        self._mode: Any = None
        retry = self._app.task(name="retry_stalled", queueing_lock="retry_stalled", pass_context=True)
        # The documentation's example looks every ten minutes; here every five seconds, not to wait so long.
        self._app.periodic(cron="* * * * * */5")(retry(_retry_stalled))

    async def install(self) -> None:
        """Create the tables."""
        async with self._app.open_async():
            await self._app.schema_manager.apply_schema_async()

    async def fill(self, events: int) -> None:
        """Commit many jobs at once."""
        async with self._app.open_async():
            await self._task.batch_defer_async(*({"n": n} for n in range(1, events + 1)))

    async def work(self, mode: str) -> str:
        """Start a worker."""
        self._mode = getattr(self, f"_{mode}")
        self._effects = AsyncConnectionPool(self.url, open=False)
        await self._effects.open(wait=True)
        await self._app.open_async()
        before = await self._newest()
        self.background(self._app.run_worker_async(concurrency=CONCURRENCY, install_signal_handlers=False))
        while (name := await self._newest()) == before:
            await asyncio.sleep(0.01)
        return str(name)

    async def _newest(self) -> int | None:
        row = await self._app.connector.execute_query_one_async(NEWEST)
        return row["id"]

    @contextlib.asynccontextmanager
    async def writer(self) -> AsyncIterator[Put]:
        """Connect, to a pool of all writers."""
        async with self._app.open_async():
            yield lambda n: self._task.defer_async(n=n)

    async def _handle(self, n: int) -> None:
        await self._mode(n)

    async def _noop(self, n: int) -> None:  # noqa: ARG002
        self.saw()

    async def _clock(self, n: int) -> None:
        self.note(n)

    async def _insert(self, n: int) -> None:
        async with self._effects.connection() as connection:
            await connection.execute(ONE, (n, PID))
        self.saw()


async def _retry_stalled(context: JobContext, timestamp: int) -> None:  # noqa: ARG001
    for job in await context.app.job_manager.get_stalled_jobs():
        await context.app.job_manager.retry_job(job)


script = Procrastinate
