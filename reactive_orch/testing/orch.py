"""What the fixture `orch` is: a test's own database, and what the test does with projections on it.

Each call opens what it needs in the event loop that it is awaited in, and closes it: nothing of one belongs to a loop
that may be gone, so that tests may run on any.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from reactive_orch.appending import append
from reactive_orch.config import Config
from reactive_orch.errors import ProjectionFailed
from reactive_orch.model import NewEvent
from reactive_orch.postgres import rewinds, testing
from reactive_orch.runtime.node import Node
from reactive_orch.runtime.worker import Worker
from reactive_orch.testing.handlers import REPLICA_SET, TIMEOUT_S, demand_projection
from reactive_orch.testing.logged import checked
from reactive_orch.testing.raising import leaves, users_own

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable
    from contextlib import AbstractAsyncContextManager
    from datetime import datetime

    from reactive_orch.model import Event, OnError, Projection
    from reactive_orch.postgres.connection import AnyConnection


@dataclass(frozen=True, slots=True)
class Orch:
    """A migrated database of one test's own, with its user's tables."""

    url: str
    """Where it is, for whatever connects by itself."""

    def connection(self) -> AbstractAsyncContextManager[AnyConnection]:
        """Connect for a block: `async with orch.connection() as connection`; asyncpg's, outside of any transaction."""
        return testing.connected(self.url)

    @contextlib.asynccontextmanager
    async def transaction(self, *, keep: bool = False) -> AsyncIterator[AnyConnection]:
        """Have a connection inside a transaction for a block; at its end all is taken back, or committed to `keep`."""
        async with self.connection() as tx:
            begun = tx.transaction()
            await begun.start()
            kept = False
            try:
                yield tx
                kept = keep
            finally:
                if tx.is_in_transaction():  # a handler may have ended it, which it has been told
                    await (begun.commit() if kept else begun.rollback())

    async def fetch(self, query: str, *arguments: Any) -> list[tuple[Any, ...]]:
        """Return the rows of a query as tuples; `arguments` are its $1, $2, …, as asyncpg takes them."""
        async with self.connection() as connection:
            return [tuple(row) for row in await connection.fetch(query, *arguments)]

    async def given(self, events: Iterable[NewEvent], *, created_at: datetime | None = None) -> list[Event]:
        """Append events in one transaction and return them as they stand in the log, with their positions.

        `created_at`, if given, is when they were: for projections that begin at a time. Raises TypeError for what is no
        NewEvent, and what `append` raises.
        """
        wanted = checked(events, "given", NewEvent)
        async with self.transaction(keep=True) as tx:
            positions = await append(tx, wanted)
            if created_at is not None:
                await testing.set_created_at(tx, positions, created_at)
            return await testing.events_at(tx, positions)

    async def run(
        self,
        *projections: Projection,
        replica_set: str = REPLICA_SET,
        batch_events: int = 100,
        on_error: OnError = "halt",
    ) -> int:
        """Let a worker handle what is in the log now, in real batches, and leave; return how many events it handled.

        Nothing is tried again, whatever a projection says. With `halt` what a handler raises is raised, and the next
        run begins with that event; with `park` its key waits and all others go on, and the next run tries it only if
        `dead_letters.retry` asks for that. What handlers append meanwhile may be handled, too, or be for the next run.

        Raises what the handler raised; ProjectionFailed when it raised nothing and did wrong, as one that takes too
        long; TypeError for what is no projection; ConfigError for two of one name, another filter, or none at all.
        """
        __tracebackhide__ = True
        for each in projections:
            demand_projection(each, "run")
        decided = [replace(each, retries=0, on_error=on_error) for each in projections]
        config = Config(database_url=self.url, batch_events=batch_events, handler_timeout_s=TIMEOUT_S)
        worker: Worker | None = None
        try:
            async with Node(config, observers=()) as node:
                worker = Worker(node, replica_set, decided, until_idle=True)
                await worker.run()
        except BaseExceptionGroup as group:
            error = next(leaves(group))
        else:
            return sum(worker.events_handled.values())
        raise users_own(error) if isinstance(error, ProjectionFailed) else error

    async def rewind(self, projection: Projection, *, replica_set: str = REPLICA_SET) -> None:
        """Let the next run handle all events again, as replayed ones; the projection's reset hook is called.

        Raises TypeError for what is no projection, ConfigError for one that has not run.
        """
        demand_projection(projection, "rewind")
        async with self.connection() as connection:
            await rewinds.rewind(connection, replica_set, projection.subscription, 0, reset=projection.reset)
