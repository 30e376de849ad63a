"""What a worker inside the test says of its health."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import anyio

from reactive_orch import Config, Node, Worker
from reactive_orch.core.health import assess

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

WELL = "live ready well"
ILL = "live ready"
OUT = "live"


@contextlib.asynccontextmanager
async def running(url: str, *projections: Any, **config: Any) -> AsyncIterator[tuple[Node, Worker]]:
    """Run a worker in this process."""
    settings = Config(database_url=url, heartbeat_s=0.2, stale_after_s=2, **config)
    async with Node(settings) as node, anyio.create_task_group() as tasks:
        worker = Worker(node, "test", projections)
        assert verdict(worker) == "live well", "starting"
        tasks.start_soon(worker.run)
        try:
            yield node, worker
        finally:
            worker.stop()


def verdict(worker: Worker) -> str:
    """Return which pages answer 200."""
    judged = assess(worker.facts())
    return " ".join(page for page in ("live", "ready", "well") if getattr(judged, page))


def says(worker: Worker, answers: str, reason: str = "") -> Callable[[], Any]:
    """Return a predicate for `wait_until`: the pages' answers, and a reason among those given."""

    async def matches() -> bool:
        reasons = assess(worker.facts()).reasons
        return verdict(worker) == answers and any(reason in given for given in (*reasons, ""))

    return matches
