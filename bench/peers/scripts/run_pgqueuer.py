"""pgqueuer: a queue. A worker with a connection of its own on uvloop, as its command line runs it; autovacuum set."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import asyncpg
import uvloop
from pgqueuer import AsyncpgDriver, Job, PgQueuer, Queries
from protocol import EFFECT, PID, Script

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from protocol import Put

ENTRYPOINT = "order_placed"
BATCH = 100
ONE = EFFECT.format("$1", "$2")


class PgQueuerScript(Script):
    """Jobs that are deleted when they are done."""

    async def install(self) -> None:
        """Create the tables, with the settings its guide asks for."""
        async with self._queries() as queries:
            await queries.install()
            await queries.optimize_autovacuum()

    async def fill(self, events: int) -> None:
        """Commit many jobs at once."""
        async with self._queries() as queries:
            payloads: list[bytes | None] = [b"%d" % n for n in range(1, events + 1)]
            await queries.enqueue([ENTRYPOINT] * events, payloads, [0] * events)

    async def work(self, mode: str) -> str:
        """Start a worker."""
        queue = PgQueuer(AsyncpgDriver(await asyncpg.connect(self.url)))
        self._effects = await asyncpg.create_pool(self.url)
        queue.entrypoint(ENTRYPOINT)(getattr(self, f"_{mode}"))
        self.background(queue.run(batch_size=BATCH))
        return str(queue.qm.queue_manager_id)

    @contextlib.asynccontextmanager
    async def writer(self) -> AsyncIterator[Put]:
        """Connect."""
        async with self._queries() as queries:
            yield lambda n: queries.enqueue(ENTRYPOINT, b"%d" % n)

    @contextlib.asynccontextmanager
    async def _queries(self) -> AsyncIterator[Queries]:
        connection = await asyncpg.connect(self.url)
        yield Queries(AsyncpgDriver(connection))
        await connection.close()

    async def _noop(self, job: Job) -> None:  # noqa: ARG002
        self.saw()

    async def _clock(self, job: Job) -> None:
        self.note(int(job.payload or b""))

    async def _insert(self, job: Job) -> None:
        await self._effects.execute(ONE, int(job.payload or b""), PID)
        self.saw()


run = uvloop.run
script = PgQueuerScript
