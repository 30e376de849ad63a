"""An application that appends one event after the other, and does what docs/operations.md tells it to.

It has time-outs, one for each host. What it was not told of is appended again, under the same event id: one that is
taken was committed.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, Self
from uuid import UUID, uuid4

import asyncpg

from integration_test.harness.connections import LOST
from reactive_orch import NewEvent, append
from reactive_orch.errors import Conflict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from integration_test.harness.connections import Connection

TIMEOUT_S = 2.0
"""For connecting to each host, and for each statement: a frozen server takes what is sent to it, and says nothing."""
AGAIN_S = 0.05
PAUSE_S = 0.02
KEYS = 200

UNREACHABLE = (*LOST, asyncpg.PostgresError, asyncpg.TargetServerAttributeNotMatched)
"""What a connection attempt ends with while there is no primary."""


class Application:
    """Appends from entry to exit."""

    def __init__(self, urls: Sequence[str]) -> None:
        """Prepare. `urls`: of each host that may be the primary, or of a proxy that leads to it."""
        self._urls = urls
        self.acknowledged: set[UUID] = set()
        """Ids of the events that it knows to be committed."""
        self.attempts: Counter[str] = Counter()
        """How often it was told so, was refused, or does not know."""
        self._connection: Connection | None = None
        self._server = ""
        self._stopping = False

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])
        self._drop()

    async def stop(self) -> None:
        """Let the event in hand be committed, and append no more. Raises what it has failed with."""
        self._stopping = True
        await self._task

    async def _run(self) -> None:
        number = 0
        while not self._stopping:
            await self._append(f"key-{number % KEYS}", uuid4())
            number += 1
            await asyncio.sleep(PAUSE_S)

    async def _append(self, key: str, event_id: UUID) -> None:
        while (outcome := await self._attempt(key, event_id)) != "acknowledged":
            self.attempts[outcome] += 1
            self._drop()
            await asyncio.sleep(AGAIN_S)
        self.attempts[outcome] += 1
        self.acknowledged.add(event_id)

    async def _attempt(self, key: str, event_id: UUID) -> str:
        try:
            connection = self._connection or await self._connect()
        except UNREACHABLE:
            return "refused"
        # With it is kept by which server it was written, so that the first events of a new primary are known.
        event = NewEvent(
            aggregate_type="Key",
            aggregate_id=key,
            event_type="Appended",
            event_id=event_id,
            correlation_id=self._server,
        )
        try:
            await append(connection, [event])
        except Conflict:  # the id is taken: the attempt before was committed after all
            return "acknowledged"
        except asyncpg.ReadOnlySQLTransactionError:
            return "refused"
        except LOST:
            return "unknown"
        return "acknowledged"

    async def _connect(self) -> Connection:
        """Connect to the first host that is the primary. Raises what the last one has failed with."""
        *others, last = self._urls
        for url in others:
            try:
                return await self._connect_to(url)
            except UNREACHABLE:
                continue
        return await self._connect_to(last)

    async def _connect_to(self, url: str) -> Connection:
        self._connection = await to_primary(url)
        self._server = await server_of(self._connection)
        return self._connection

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.terminate()
        self._connection = None


async def to_primary(url: str) -> Connection:
    """Connect to a host if it is the primary, within bounded time."""
    return await asyncpg.connect(f"{url}?target_session_attrs=primary", timeout=TIMEOUT_S, command_timeout=TIMEOUT_S)


async def server_of(connection: Connection) -> str:
    """Return what names the server's process: another one on each node, and after each start."""
    return str(await connection.fetchval("SELECT pg_postmaster_start_time()"))
