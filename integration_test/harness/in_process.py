"""Workers inside the test, where the fault sits in a handler or in a rival; and what is asked at the end."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from integration_test.harness.checkers import assert_each_once, assert_in_order, wait_handled
from integration_test.harness.projections import record
from reactive_orch import Config, Event, NewEvent, Node, Projection, ProjectionFailed, Worker
from reactive_orch import projection as make_projection

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from integration_test.harness.checkers import Connection


@contextlib.asynccontextmanager
async def serving(url: str, *projections: Projection, until_idle: bool = False, **config: Any) -> AsyncIterator[Worker]:
    """Run a worker inside the test; at the end of the block it leaves, or, with `until_idle`, has left by itself."""
    async with Node(Config(database_url=url, **config)) as node:
        worker = Worker(node, "test", projections, until_idle=until_idle)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(worker.run)
            yield worker
            if not until_idle:
                worker.stop()


def acting_at_bad_events(act: Callable[[Connection], Awaitable[None]], *, batch: bool) -> Projection:
    """Return a projection `handled` that records its events and does this at the bad ones."""

    async def one(e: Event, tx: Connection) -> None:
        await record(tx, "handled", e)
        if e.event_type == "Bad":
            await act(tx)

    async def many(events: Sequence[Event], tx: Connection) -> None:
        for e in events:
            await one(e, tx)

    return make_projection("handled", batch=batch)(many if batch else one)


async def run_until_idle(url: str, *projections: Projection, **config: Any) -> None:
    """Handle what is there."""
    async with asyncio.timeout(30), serving(url, *projections, until_idle=True, **config):
        pass


async def failure(url: str, *projections: Projection, **config: Any) -> ProjectionFailed:
    """Run a worker whose projection fails for good and return how."""
    with pytest.raises(BaseExceptionGroup) as caught:
        await run_until_idle(url, *projections, **{"retries": 0, **config})
    failed = caught.value.subgroup(ProjectionFailed)
    assert failed is not None, caught.value
    leaf: BaseException = failed
    while isinstance(leaf, BaseExceptionGroup):
        leaf = leaf.exceptions[0]
    assert isinstance(leaf, ProjectionFailed)
    return leaf


async def assert_effects_match_checkpoints(connection: Connection, projection: str = "handled") -> None:
    """Check that an event was handled if and only if its partition's checkpoint has passed it."""
    wrong = await connection.fetch(_MISMATCHED, projection)
    assert not wrong, wrong


_MISMATCHED = """
SELECT e.global_position, e.partition, c.position AS checkpoint, count(h.id) AS times
FROM reactive_orch.events e
JOIN reactive_orch.checkpoints c ON c.replica_set = 'test' AND c.projection = $1 AND c.partition = e.partition
LEFT JOIN public.handled h ON h.replica_set = 'test' AND h.projection = $1 AND h.position = e.global_position
GROUP BY 1, 2, 3 HAVING count(h.id) <> (c.position >= e.global_position)::integer ORDER BY 1
"""


async def checked(connection: Connection, *projections: str) -> None:
    """Wait for the end of the log, then check everything."""
    for projection in projections or ("handled",):
        await wait_handled(connection, projection)
        await assert_each_once(connection, projection)
    await assert_in_order(connection)


def event(key: str = "k", event_type: str = "Good", payload: bytes = b"") -> NewEvent:
    return NewEvent(aggregate_type="Adversity", aggregate_id=key, event_type=event_type, payload=payload)
