"""reactive_orch, with its defaults, as a library."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from typing import TYPE_CHECKING, Any

import asyncpg
from protocol import EFFECT, PID, Script

from reactive_orch import Config, Event, Node, Worker, projection

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from protocol import Put

    from reactive_orch import Projection

INSERT = (
    "INSERT INTO reactive_orch.events (aggregate_type, aggregate_id, aggregate_version, event_type, payload) "
    "VALUES ('Order', gen_random_uuid()::text, 1, 'OrderPlaced', $1)"
)
FILL = """
INSERT INTO reactive_orch.events (aggregate_type, aggregate_id, aggregate_version, event_type, payload)
SELECT 'Order', gen_random_uuid()::text, 1, 'OrderPlaced', convert_to(n::text, 'UTF8') FROM generate_series(1, $1::integer) AS n
"""
ONE = EFFECT.format("$1", "$2")
MANY = "INSERT INTO public.effects (id, worker) SELECT n, $2 FROM unnest($1::bigint[]) AS n"


class ReactiveOrch(Script):
    """Events that stay, divided among workers."""

    async def install(self) -> None:
        """Create the tables."""
        command = ("-m", "reactive_orch", "migrate", "--database-url", self.url)
        process = await asyncio.create_subprocess_exec(sys.executable, *command, stdout=asyncio.subprocess.DEVNULL)
        assert await process.wait() == 0

    async def fill(self, events: int) -> None:
        """Commit many events at once."""
        connection = await asyncpg.connect(self.url)
        await connection.execute(FILL, events)
        await connection.close()

    async def work(self, mode: str) -> str:
        """Start a worker."""
        self.background(self._serve(getattr(self, f"_{mode}")()))
        while not hasattr(self, "_worker") or self._worker.state.name != "SERVING":
            await asyncio.sleep(0.01)
        return str(self._worker.member)

    async def _serve(self, handler: Projection) -> None:
        async with Node(Config(database_url=self.url)) as node:
            self._worker = Worker(node, "peers", [handler])
            await self._worker.run()

    @contextlib.asynccontextmanager
    async def writer(self) -> AsyncIterator[Put]:
        """Connect."""
        connection = await asyncpg.connect(self.url)
        yield lambda n: connection.execute(INSERT, b"%d" % n)
        await connection.close()

    def _noop(self) -> Projection:
        @projection("noop")
        async def noop(event: Event, tx: Any) -> None:  # noqa: ARG001
            self.saw()

        return noop

    def _clock(self) -> Projection:
        @projection("clock")
        async def clock(event: Event, tx: Any) -> None:  # noqa: ARG001
            self.note(int(event.payload))

        return clock

    def _insert(self) -> Projection:
        @projection("insert")
        async def insert(event: Event, tx: Any) -> None:
            await tx.execute(ONE, int(event.payload), PID)
            self.saw()

        return insert

    def _insert_many(self) -> Projection:
        @projection("insert_many", batch=True)
        async def insert_many(events: Sequence[Event], tx: Any) -> None:
            await tx.execute(MANY, [int(event.payload) for event in events], PID)
            self.handled += len(events)

        return insert_many


script = ReactiveOrch
