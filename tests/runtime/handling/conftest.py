"""Runners whose node has no connection: what they hold and let go is decided without one."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import pytest

from reactive_orch import Config, Node, projection
from reactive_orch.model import OWN_LOG, Log
from reactive_orch.model.reports import Subject
from reactive_orch.runtime.handling.runner import Runner
from reactive_orch.runtime.handling.scope import Scope
from reactive_orch.runtime.handling.serial import Serial
from reactive_orch.runtime.interruptions import Interruptions
from reactive_orch.runtime.reading.follower import LogFollower
from reactive_orch.runtime.reading.window_cache import caches_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from reactive_orch.model import Event

    Making: TypeAlias = Callable[..., Runner]

BATCH = 10
PARTITIONS = 8


@pytest.fixture
def node() -> Node:
    node = Node(Config(database_url="postgresql://nobody@127.0.0.1:1/none", batch_events=BATCH), observers=())
    node.logs[OWN_LOG] = LogFollower(Log(OWN_LOG, PARTITIONS), node.database, lambda: False, node.watchers.emit)
    return node


@pytest.fixture
def runner_of(node: Node) -> Making:
    def make(name: str = "p", lanes: int = 2) -> Runner:
        @projection(name, concurrency=lanes)
        async def handler(event: Event, tx: object) -> None:
            raise NotImplementedError

        interruptions = Interruptions(node.watchers.emit, "test", *handler.subscription)
        scope = Scope(
            node=node,
            replica_set="test",
            projection=handler,
            changed=lambda: None,
            idle=lambda: None,
            serial=Serial(node.database, Subject("test", *handler.subscription), interruptions, node.watchers.emit),
            interruptions=interruptions,
        )
        return Runner(scope, caches_of([handler])[handler.subscription])

    return make


@pytest.fixture
def runner(runner_of: Making) -> Runner:
    return runner_of()
