"""How far a worker is that runs until it is idle."""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from typing import TYPE_CHECKING

from reactive_orch.commands.progress import progress
from reactive_orch.core.remaining import Remaining

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from reactive_orch.commands.progress import Progress
    from reactive_orch.model import Subscription
    from reactive_orch.runtime.node import Node
    from reactive_orch.runtime.worker import Worker

LOOK_S = 0.25


@contextlib.asynccontextmanager
async def progress_until_idle(node: Node, worker: Worker, *, silent: bool) -> AsyncIterator[None]:
    """Show how much this worker has handled, and has still to handle, while the block lasts."""
    with progress(f"replica set {worker.replica_set}", silent=silent) as shown:
        looking = asyncio.create_task(_look(node, worker, shown))
        try:
            yield
        finally:
            looking.cancel()
            await asyncio.wait([looking])


async def _look(node: Node, worker: Worker, shown: Progress) -> None:
    remaining: defaultdict[Subscription, Remaining] = defaultdict(Remaining)
    while True:
        await asyncio.sleep(LOOK_S)
        handled = left = 0
        for each in worker.status().projections:
            per_position = node.logs[each.subscription.log].log.partitions
            handled += each.events_handled
            left += remaining[each.subscription].seen(each.events_handled, each.behind // per_position, each.held)
        if handled + left:
            shown.at("handling", handled, handled + left)
