"""The primary changes, in each way in which it does: workers go on at the new one, nothing is lost or done twice."""

from __future__ import annotations

import asyncio
import itertools
import signal
from typing import TYPE_CHECKING

import pytest

from integration_test.environments.cluster.figures import note
from integration_test.environments.cluster.patroni import PATIENCE_S, TTL_S
from integration_test.environments.cluster.scene import HOSTS, NEW, PROXY, WAYS, at_work
from integration_test.harness.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from integration_test.environments.cluster.patroni import Node, PatroniCluster
    from integration_test.environments.cluster.scene import Scene

    Change = Callable[[Scene, Node, Node], Coroutine[None, None, None]]

LIMITS_S = {HOSTS: 3.0, PROXY: 5.0}
"""From the new primary's first event on. The goals are 1 and 3 s: the rest is for slow machines."""

_numbers = itertools.count(1)


async def switched_over(scene: Scene, primary: Node, standby: Node) -> None:
    """The two change places, in good order."""
    status, said = await scene.patroni.ask(primary, "switchover", leader=primary.name, candidate=standby.name)
    assert status == 200, said


async def postgres_killed(scene: Scene, primary: Node, standby: Node) -> None:
    """PostgreSQL is killed: Patroni starts it again."""
    del scene, standby
    primary.kill_postmaster()


async def node_killed(scene: Scene, primary: Node, standby: Node) -> None:
    """So is Patroni with it: the standby is promoted when the lease has run out. Then the node comes back."""
    primary.send(signal.SIGKILL)
    await scene.nobody_is_ready()
    await _promoted(scene.patroni, standby)
    scene.patroni.start_node(primary)


async def node_killed_ahead_of_its_standby(scene: Scene, primary: Node, standby: Node) -> None:
    """The same when the standby lacks the last events: the node comes back with a log that has become another one."""
    primary.stop_sending()
    await scene.acknowledged(100)
    await node_killed(scene, primary, standby)


async def node_frozen(scene: Scene, primary: Node, standby: Node) -> None:
    """The same of a node that is frozen: it keeps its connections, and comes back as a primary that knows nothing."""
    primary.send(signal.SIGSTOP)
    await _promoted(scene.patroni, standby)
    await asyncio.sleep(TTL_S)
    primary.send(signal.SIGCONT)


async def _promoted(patroni: PatroniCluster, standby: Node) -> None:
    async def promoted() -> bool:
        return (await patroni.ask(standby, "primary"))[0] == 200

    await wait_until(promoted, PATIENCE_S, f"{standby.name} is promoted")


@pytest.mark.parametrize("change", [switched_over, postgres_killed, node_killed, node_frozen])
async def test_workers_go_on_when_the_primary_is(
    patroni: PatroniCluster, change: Change, request: pytest.FixtureRequest
) -> None:
    gone = await _gone_after(patroni, change, request)
    assert not (patroni.synchronous and gone), "acknowledged, and not in the log"


@pytest.mark.parametrize("patroni", [False], indirect=True, ids=["asynchronous"])
async def test_what_an_asynchronous_standby_lacked_is_gone_and_workers_go_on(
    patroni: PatroniCluster, request: pytest.FixtureRequest
) -> None:
    assert await _gone_after(patroni, node_killed_ahead_of_its_standby, request) >= 100


async def _gone_after(patroni: PatroniCluster, change: Change, request: pytest.FixtureRequest) -> int:
    """Change the primary, and check what must be true; return how many acknowledged events are not in the log."""
    async with at_work(patroni, f"test_{next(_numbers)}") as scene:
        before, nodes = await scene.server(), await patroni.healthy()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(change(scene, *nodes))
            for way in WAYS:
                tasks.create_task(scene.start(way, NEW))
            figures = await scene.goes_on_after(before)
        await scene.all_handle()
        for worker in scene.workers.values():
            await worker.ready()
        gone = await scene.check()
        note(request, (patroni.replication, change.__name__.replace("_", " ")), figures, gone)
        for way, limit_s in LIMITS_S.items():
            assert figures.slowest_s(way) < limit_s, figures
        for worker in scene.workers.values():
            await worker.stop()
    return gone
