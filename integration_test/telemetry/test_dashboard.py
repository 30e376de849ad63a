"""Each query of the dashboard, and what workers are scaled by, asked of a Prometheus that scrapes real workers.

What Jaeger has to show, and the points that lead there, are in `environments/jaeger/test_dashboard.py`.
"""

from __future__ import annotations

import contextlib
import shutil
import signal
from typing import TYPE_CHECKING

import pytest

from integration_test.environments.jaeger.alerting import Scene
from integration_test.harness.checkers import wait_settled
from integration_test.harness.command_line import run
from integration_test.harness.dashboard import QUERIES, filled
from integration_test.harness.load import Load, append_events, append_until_deadlock
from integration_test.harness.projections import POISON
from integration_test.harness.waiting import TimedOut, wait_until

if TYPE_CHECKING:
    from integration_test.harness.processes import WorkerProcess

SHOP = "shop"
RATES_OVER = "4s"
"""Several times as long as it takes Prometheus to come again here."""


@pytest.mark.skipif(shutil.which("prometheus") is None, reason="prometheus is not installed (Debian: prometheus)")
async def test_every_query_has_something_to_show(database: str) -> None:
    async with Scene(database) as scene:
        await _happen(scene)
        unanswered = [(title, filled(expression, RATES_OVER)) for title, expression in QUERIES]

        async def all_are_answered() -> bool:
            unanswered[:] = [(title, query) for title, query in unanswered if not await scene.draws(query)]
            return not unanswered

        async with Load(database):
            with contextlib.suppress(TimedOut):
                await wait_until(all_are_answered, timeout_s=60)
        assert unanswered == []


async def _happen(scene: Scene) -> None:
    """Let a worker die that alone had a projection, another projection be paused, an event fail, handlers deadlock."""
    await _start(scene)
    killed = await _start(scene, "handled_too")
    await _start(scene)
    await wait_settled(scene.connection, SHOP, members=3)
    killed.send(signal.SIGKILL)
    (await run("pause", "--replica-set", SHOP, "--projection", "handled", "--database-url", scene.url)).done()
    await append_events(scene.connection, 1, event_type=POISON)
    await append_until_deadlock(scene.connection)


async def _start(scene: Scene, *more: str) -> WorkerProcess:
    return await scene.worker("handled", "failing", "sharing", *more, options="--retries 0", replica_set=SHOP)
