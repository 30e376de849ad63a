"""Viewers of the page as a browser is one: they follow its events."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin

import aiohttp
import anyio

from integration_test.harness.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from anyio.abc import TaskGroup


class Viewer:
    """What one viewer has got."""

    def __init__(self) -> None:
        """Nothing yet."""
        self.page: dict[str, Any] = {}
        self.snapshots = self.patches = 0
        self.dismissed = False
        """The worker has ended what it told, in good order."""

    async def follow(self, response: aiohttp.ClientResponse) -> None:
        """Take all that comes."""
        with contextlib.suppress(aiohttp.ClientError):  # killed
            await self._follow(response)
            self.dismissed = True

    async def _follow(self, response: aiohttp.ClientResponse) -> None:
        event = ""
        async for line in response.content:
            name, _, value = line.decode().rstrip("\n").partition(": ")
            if name == "event":
                event = value
            elif name == "data" and event == "snapshot":
                self.page, self.snapshots = json.loads(value), self.snapshots + 1
            elif name == "data":
                self.page, self.patches = merged(self.page, json.loads(value)), self.patches + 1

    async def shows(self, what: Callable[[dict[str, Any]], Any], timeout_s: float = 30.0) -> None:
        """Wait until the page shows something."""

        async def shown() -> bool:
            return bool(self.page) and bool(what(self.page))

        await wait_until(shown, timeout_s, "the page shows it")


def merged(target: Any, patch: Any) -> Any:
    """Return what a merge patch makes of a value (RFC 7396)."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merged(result.get(key), value)
    return result


@contextlib.asynccontextmanager
async def viewing(
    base: str, tasks: TaskGroup, session: aiohttp.ClientSession, query: str = ""
) -> AsyncIterator[Viewer]:
    """Follow the events of a page while the block runs."""
    viewer, limit = Viewer(), aiohttp.ClientTimeout(total=None)
    async with session.get(urljoin(base, f"events{query}"), timeout=limit) as response:
        assert response.status == 200, await response.text()
        tasks.start_soon(viewer.follow, response)
        yield viewer
        response.close()


@contextlib.asynccontextmanager
async def watching(base: str | None, query: str = "", viewers: int = 1) -> AsyncIterator[list[Viewer]]:
    """Follow the events of a worker's page, as so many viewers. `base`: any page of the worker's."""
    assert base is not None, "it has not said where its pages are"
    connector = aiohttp.TCPConnector(limit=0)
    async with (
        aiohttp.ClientSession(connector=connector, read_bufsize=2**24) as session,
        anyio.create_task_group() as tasks,
        contextlib.AsyncExitStack() as stack,
    ):
        yield [await stack.enter_async_context(viewing(base, tasks, session, query)) for _ in range(viewers)]
        tasks.cancel_scope.cancel()
