"""A steady load: one event in a transaction, at a fixed rate."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
import uuid
from typing import TYPE_CHECKING, Any

from bench.scene import connected

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

INSERT = (
    "INSERT INTO reactive_orch.events (aggregate_type, aggregate_id, aggregate_version, event_type) "
    "VALUES ('Load', $1, $2, 'Loaded')"
)
KEYS = "SELECT DISTINCT ON (partition) aggregate_id FROM reactive_orch.events ORDER BY partition, global_position"


@contextlib.asynccontextmanager
async def load(
    url: str, per_s: float, keys: Sequence[str] = (), *, insert: str = INSERT, **settings: str
) -> AsyncIterator[None]:
    """Write during the block, to these keys in turn, or each to a key of its own. Raises what the writer failed with."""
    writing = asyncio.create_task(_write(url, per_s, keys, insert, settings))
    try:
        yield
    finally:
        writing.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await writing


async def one_key_per_partition(connection: Any) -> list[str]:
    """Return a key of each partition, in their order, from a log that has events in all of them."""
    return [row["aggregate_id"] for row in await connection.fetch(KEYS)]


async def _write(url: str, per_s: float, keys: Sequence[str], insert: str, settings: dict[str, str]) -> None:
    async with connected(url, **settings) as connection:
        began = time.monotonic()
        for n in itertools.count():
            key = keys[n % len(keys)] if keys else str(uuid.uuid4())
            await connection.execute(insert, key, n + 1)
            await asyncio.sleep(max(began + (n + 1) / per_s - time.monotonic(), 0))
