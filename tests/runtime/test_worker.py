"""What a node and a worker are made of, before there is a connection."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from reactive_orch import Config, ConfigError, Hooks, Node, Worker, projection, running
from reactive_orch.http.asgi import health_app
from reactive_orch.http.routes import health_routes

CONFIG = Config(database_url="postgresql://ann:hush@127.0.0.1:1/none")


@projection("orders")
async def orders(_event: Any, _tx: Any) -> None:
    """Do nothing."""


@pytest.fixture
def node() -> Node:
    return Node(CONFIG, observers=())


@pytest.mark.parametrize("config", ["postgresql://ann:hush@host/db", None])
def test_a_node_is_made_of_a_configuration(config: Any) -> None:
    with pytest.raises(ConfigError, match=r"Node\(Config\(database_url=…\)\), not (str|NoneType)$"):
        Node(config)


@pytest.mark.parametrize("wrong", [None, CONFIG])
def test_a_worker_runs_on_a_node(wrong: Any) -> None:
    with pytest.raises(ConfigError, match=r"Worker\(Node\(config\), …\), not (Config|NoneType)$"):
        Worker(wrong, "shop", [orders])


def test_a_replica_set_has_a_name(node: Node) -> None:
    nobody: Any = None
    with pytest.raises(ConfigError, match="replica-set name must be text, not None"):
        Worker(node, nobody, [orders])


@pytest.mark.parametrize("wrong", [orders, None, "orders"])
def test_projections_are_a_list(node: Node, wrong: Any) -> None:
    with pytest.raises(ConfigError, match="the projections of a worker are a list"):
        Worker(node, "shop", wrong)


def test_projections_may_come_one_by_one(node: Node) -> None:
    several: Any = iter([orders])
    with pytest.raises(ConfigError, match="two projections are named 'orders'"):
        Worker(node, "shop", [*several, orders])
    Worker(node, "shop", [orders])


async def _async_middleware(handle: Any) -> Any:
    return handle


class _AsyncMiddleware:
    async def __call__(self, handle: Any) -> Any:
        return handle


class _AsyncHooks(Hooks):
    async def lost(self, subject: Any, partitions: Any) -> None: ...  # type: ignore[override]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (
            {"middleware": print},
            "middleware must be a list of functions that take a handler and return one, not <built",
        ),
        ({"batch_middleware": ["print"]}, r"batch_middleware must be a list of functions .*, not \('print',\)"),
        ({"middleware": [_async_middleware]}, "middleware: _async_middleware is async; write a plain `def`"),
        ({"hooks": [print]}, "hooks must be a list of objects of classes that extend Hooks, not"),
        ({"hooks": [Hooks]}, "hooks must be a list of objects of classes that extend Hooks, not"),
        ({"middleware": [partial(_async_middleware, None)]}, "middleware: functools.partial.* is async"),
        ({"middleware": [_AsyncMiddleware()]}, "middleware: <.*_AsyncMiddleware object .* is async"),
        ({"hooks": [_AsyncHooks()]}, "hooks: _AsyncHooks.lost is async; hooks are called at once, so write a plain"),
    ],
)
def test_what_is_no_middleware_and_no_hooks_is_said(node: Node, options: Any, says: str) -> None:
    with pytest.raises(ConfigError, match=f"^a worker's {says}"):
        Worker(node, "shop", [orders], **options)
    with pytest.raises(ConfigError, match=f"^projection 'mails': {says}"):
        projection("mails", **options)(orders.handler)


@pytest.mark.parametrize("taker", [running, health_app, health_routes])
def test_what_is_no_worker_is_said(node: Node, taker: Any) -> None:
    for wrong in ([Worker(node, "shop", [orders])], node):
        with pytest.raises(ConfigError, match=rf"^{taker.__name__} takes workers, .* {type(wrong).__name__}$"):
            taker(wrong)
