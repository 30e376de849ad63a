"""Workers inside the test, where the fault sits in a handler or in a rival; and what is asked at the end."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from integration_test.harness.projections import record
from reactive_orch import Config, Event, NewEvent, Node, Projection, ProjectionFailed, Worker
from reactive_orch import projection as make_projection
from reactive_orch.postgres.database import Database

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from integration_test.harness.connections import Connection


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


@contextlib.asynccontextmanager
async def pools(url: str) -> AsyncIterator[Database]:
    """Open the pools of a worker, without one."""
    database = Database(url, label="test", connections_max=4, handler_timeout_s=60)
    await database.open()
    try:
        yield database
    finally:
        await database.close()


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
        await run_until_idle(url, *projections, **{"retries": 0, "on_error": "halt", **config})
    failed = caught.value.subgroup(ProjectionFailed)
    assert failed is not None, caught.value
    leaf: BaseException = failed
    while isinstance(leaf, BaseExceptionGroup):
        leaf = leaf.exceptions[0]
    assert isinstance(leaf, ProjectionFailed)
    return leaf


def event(key: str = "k", event_type: str = "Good", payload: bytes = b"") -> NewEvent:
    return NewEvent(aggregate_type="Adversity", aggregate_id=key, event_type=event_type, payload=payload)
