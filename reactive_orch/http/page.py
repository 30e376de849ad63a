"""The page, and what it asks for: read-only, for people who look.

/               the page, of this worker's replica set, or with ?replica_set=NAME of another one
/events         what it shows, as server-sent events: a snapshot, then JSON merge patches
/status         the same as `status --json`
/dead-letters   with ?projection=NAME the keys of it that fail, as `dead-letters show --json`, 100 at most
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
from aiohttp import web

from reactive_orch.core.letters import Shown, commands_of, whole_as_json
from reactive_orch.core.overview import overview
from reactive_orch.core.overview_json import as_json, since
from reactive_orch.core.problems import problems
from reactive_orch.errors import ConfigError, ReactiveOrchError, Unavailable
from reactive_orch.http.feed import Feed
from reactive_orch.http.guard import HEADERS, guarded
from reactive_orch.model.keys import WantedKeys
from reactive_orch.postgres import dead_letters, migrations
from reactive_orch.postgres import overview as looking
from reactive_orch.postgres import page as rows
from reactive_orch.postgres.database import Database
from reactive_orch.runtime.accounts import version

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence

    from anyio.abc import TaskGroup

    from reactive_orch.model.keys import FailingKey
    from reactive_orch.postgres.connection import AnyConnection

STATIC = Path(__file__).parent / "static"
STILL_HERE_S = 10.0
"""A beat is sent after so long without a message: the viewer, and whoever is between, learns that the worker lives."""
KEYS_MOST = 100
STATUS_FOR_S = 1.0
"""An answer of /status is given again for so long, however many ask; so are the names of the replica sets."""
CONNECTIONS_MOST = 4
"""Of the page: one to answer what is asked for, and one for each replica set that somebody watches."""
TURN_S = 5.0
"""For so long a request waits until those before it have been answered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PageOptions:
    """What a user may choose."""

    hosts: Sequence[str] = ()
    """By these names it may be asked for, besides by addresses and this machine's own."""
    trace_url: str | None = None
    """Where a trace is shown, with {trace_id} in it."""
    payloads: bool = False
    """Whether payloads of failing events are shown."""


@dataclass(kw_only=True)
class StatusPage:
    """The page of one worker."""

    url: str
    """The database's."""
    replica_set: str
    """The worker's own."""
    served_by: Callable[[], int | None]
    """The worker, as a member."""
    options: PageOptions
    feeds: dict[str, Feed] = field(default_factory=dict)
    _status: tuple[float, Mapping[str, Any]] | None = None
    _names: tuple[float, Sequence[str]] = (0.0, ())
    _asking: anyio.Lock = field(default_factory=anyio.Lock)
    _connections: anyio.Semaphore = field(default_factory=lambda: anyio.Semaphore(CONNECTIONS_MOST))

    def add_to(self, app: web.Application, tasks: TaskGroup) -> None:
        """Serve it."""
        for path, handler in (
            ("/", self._page),
            ("/events", partial(self._events, tasks)),
            ("/status", self._show_status),
            ("/dead-letters", self._dead_letters),
        ):
            app.router.add_get(path, guarded(_explained(handler), self.options.hosts), allow_head=path != "/events")
        for file in (each for each in STATIC.rglob("*.*") if each.suffix in _TYPES):
            path = f"/static/{file.relative_to(STATIC).as_posix()}"
            app.router.add_get(path, guarded(partial(_file, file), self.options.hosts))

    async def _page(self, request: web.Request) -> web.StreamResponse:
        return await _file(STATIC / "index.html", request)

    async def _events(self, tasks: TaskGroup, request: web.Request) -> web.StreamResponse:
        feed = await self._feed(request.query.get("replica_set", self.replica_set))
        headers = HEADERS | {"Content-Type": "text/event-stream", "X-Accel-Buffering": "no"}
        response = web.StreamResponse(headers=headers)
        with anyio.CancelScope() as scope, contextlib.suppress(ConnectionError, anyio.EndOfStream):
            async with feed.watched(tasks, scope.cancel) as messages:
                await response.prepare(request)
                await response.write(b"retry: 1000\n\n")
                while True:
                    message = b"event: beat\ndata:\n\n"
                    with anyio.move_on_after(STILL_HERE_S):
                        message = await messages.receive()
                    await response.write(message)
        if scope.cancelled_caught and request.transport is not None:
            request.transport.abort()  # it does not take what it is sent: nor would it take the end
        return response

    async def _feed(self, replica_set: str) -> Feed:
        """Return the feed of a replica set. Raises ConfigError if there is none of that name."""
        await self._demand(replica_set)
        return self.feeds.setdefault(replica_set, Feed(self._connected, replica_set, self._own))

    async def _demand(self, replica_set: str) -> None:
        """Raise ConfigError for another replica set than this worker's, if there is none of that name."""
        if replica_set == self.replica_set:
            return
        async with self._turn():
            if time.monotonic() - self._names[0] > STATUS_FOR_S:
                async with self._connected() as connection:
                    self._names = time.monotonic(), await rows.replica_sets(connection)
        if replica_set not in self._names[1]:
            msg = f"there is no replica set {replica_set!r}"
            raise ConfigError(msg)

    @contextlib.asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        """Wait for one's turn: what is asked for is looked up one after the other. Raises Unavailable."""
        try:
            with anyio.fail_after(TURN_S):
                await self._asking.acquire()
        except TimeoutError:
            msg = "others have asked before, and the database has not answered them yet"
            raise Unavailable(msg) from None
        try:
            yield
        finally:
            self._asking.release()

    def _own(self) -> Mapping[str, Any]:
        return {
            "served_by": self.served_by(),
            "version": version(),
            "trace_url": self.options.trace_url,
            "payloads": self.options.payloads,
        }

    @contextlib.asynccontextmanager
    async def _connected(self, _first: bool = True) -> AsyncIterator[AnyConnection]:  # noqa: FBT001, FBT002 - as eyes call it
        """Connect for the page alone: what it asks for must hold up no worker."""
        try:
            self._connections.acquire_nowait()
        except anyio.WouldBlock:
            msg = f"the page has {CONNECTIONS_MOST} connections already: others watch other replica sets"
            raise Unavailable(msg) from None
        try:
            database = Database(self.url, label="page", connections_max=1, handler_timeout_s=60.0)
            connection = await database.connect("page")
            try:
                yield connection
            finally:
                with anyio.CancelScope(shield=True):
                    await connection.close(timeout=2)
        finally:
            self._connections.release()

    async def _show_status(self, _request: web.Request) -> web.Response:
        async with self._turn():
            if self._status is None or time.monotonic() - self._status[0] > STATUS_FOR_S:
                self._status = time.monotonic(), await self._looked()
        return web.json_response(self._status[1], headers=HEADERS)

    async def _looked(self) -> Mapping[str, Any]:
        async with self._connected() as connection:
            await migrations.check(connection)
            seen = await looking.look(connection)
        shown = overview(seen)
        return as_json(shown, problems(shown), partial(since, seen.at))

    async def _dead_letters(self, request: web.Request) -> web.Response:
        asked = request.query
        wanted = WantedKeys(
            asked.get("replica_set", self.replica_set),
            asked.get("projection"),
            log=asked.get("log"),
            most=KEYS_MOST + 1,
        )
        await self._demand(wanted.replica_set)
        async with self._turn(), self._connected() as connection:
            keys = await dead_letters.listed(connection, wanted)
            shown = await self._letters(connection, wanted.replica_set, keys[:KEYS_MOST])
        return web.json_response({"keys": shown, "more": len(keys) > KEYS_MOST}, headers=HEADERS)

    async def _letters(
        self, connection: AnyConnection, replica_set: str, keys: Sequence[FailingKey]
    ) -> list[Mapping[str, Any]]:
        events = await dead_letters.first_events(connection, keys)
        may = self.options.payloads and await dead_letters.may_not_read_payloads(connection) is None
        payloads = await dead_letters.first_payloads(connection, keys) if may else {}
        return [
            whole_as_json(Shown(replica_set, key, events.get(key.id), payload=payloads.get(key.id)))
            | {"commands": commands_of(replica_set, key)}
            for key in keys
        ]


_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


async def _file(path: Path, _request: web.Request) -> web.StreamResponse:
    headers = HEADERS | {"Content-Type": f"{_TYPES[path.suffix]}; charset=utf-8", "Cache-Control": "no-cache"}
    return web.FileResponse(path, headers=headers)


def _explained(handler: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> Any:
    """Return a handler that says in JSON why it cannot answer."""

    async def answer(request: web.Request) -> web.StreamResponse:
        try:
            return await handler(request)
        except Unavailable as error:
            return web.json_response({"error": str(error)}, status=503, headers=HEADERS)
        except ConfigError as error:
            return web.json_response({"error": str(error)}, status=404, headers=HEADERS)
        except ReactiveOrchError as error:
            return web.json_response({"error": str(error)}, status=500, headers=HEADERS)

    return answer
