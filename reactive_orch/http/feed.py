"""What the page is fed with: one look at the database for all who watch, and none while nobody does.

A viewer gets a snapshot, and then a patch for each look. One that is too slow to take them is cut: it comes back by
itself, and gets a snapshot again.
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import anyio

from reactive_orch.core.merge_patch import merge_patch
from reactive_orch.core.overview import overview
from reactive_orch.core.page.snapshot import Sighted, nothing_seen, snapshot
from reactive_orch.core.page.story import Story
from reactive_orch.core.problems import problems
from reactive_orch.errors import ConfigError, Locked, ReactiveOrchError, Unavailable
from reactive_orch.looking.eyes import Eyes, Sight
from reactive_orch.postgres import overview as looking
from reactive_orch.postgres import page as rows

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager

    from anyio.abc import TaskGroup
    from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

    from reactive_orch.core.page.story import Page
    from reactive_orch.model.membership import AdoptionRow, GenerationRow
    from reactive_orch.model.overview import GenerationSeen, Seen
    from reactive_orch.postgres.connection import AnyConnection

    Connect = Callable[[bool], AbstractAsyncContextManager[AnyConnection]]

GAP_S = 0.2
"""From one look to the next: a rebalance is on the page within a second, and all that it notifies costs a few looks."""
REST_MOST_S = 5.0
"""Where looks take long, the page is no older than this and one of them."""
REBALANCES = 20
BACKLOG = 16
"""So many messages wait for a viewer, at most: half a minute's."""


@dataclass(eq=False, slots=True)
class _Viewer:
    messages: MemoryObjectSendStream[bytes]
    cut: Callable[[], None]
    begun: bool = False


class Feed:
    """What is told of one replica set."""

    def __init__(self, connect: Connect, replica_set: str, own: Callable[[], Mapping[str, Any]]) -> None:
        """Look at nothing yet. `own` tells what the process adds: who it is, and its options."""
        self.replica_set = replica_set
        self._own = own
        self._eyes = Eyes(
            Sight(connect=connect, see=self._see, replica_set=replica_set, gap_s=GAP_S, rest_most_s=REST_MOST_S)
        )
        self._viewers: set[_Viewer] = set()
        self._resting: anyio.CancelScope | None = None
        self._looking = False
        self._known = Known()
        self._story = Story()
        self._page: Page | None = None
        """As it was told last; None while nobody watches."""

    @contextlib.asynccontextmanager
    async def watched(
        self, tasks: TaskGroup, cut: Callable[[], None]
    ) -> AsyncIterator[MemoryObjectReceiveStream[bytes]]:
        """Yield the messages for one viewer; `cut` is called if it does not take them."""
        send, receive = anyio.create_memory_object_stream[bytes](BACKLOG)
        viewer = _Viewer(send, cut)
        self._viewers.add(viewer)
        if self._page is not None:
            self._begin(viewer, self._page)
        if not self._looking:
            self._looking = True
            tasks.start_soon(self._look_on)
        try:
            with send, receive:
                yield receive
        finally:
            self._discard(viewer)

    async def _look_on(self) -> None:
        try:
            while self._viewers:
                await self._look_while_watched()
                self._page = None
                await self._eyes.close()  # meanwhile somebody may have come, as after a reload
        finally:
            self._looking, self._page = False, None
            for viewer in self._viewers:  # the worker ends
                viewer.messages.close()
            with anyio.CancelScope(shield=True):
                await self._eyes.close()

    async def _look_while_watched(self) -> None:
        while self._viewers:
            with contextlib.suppress(Exception):  # whatever it is, the page must not end its worker
                await self._look_once()
            with anyio.CancelScope() as self._resting:
                await self._eyes.rest()

    async def _look_once(self) -> None:
        try:
            self._show(await self._eyes.look())
        except ReactiveOrchError as error:
            self._miss(_headline(error), str(error))
        except Exception as error:
            self._miss("The page has failed", f"{type(error).__name__}: {error}")
            raise

    def _discard(self, viewer: _Viewer) -> None:
        self._viewers.discard(viewer)
        if not self._viewers and self._resting is not None:
            self._resting.cancel()  # nobody looks any more

    async def _see(self, connection: AnyConnection) -> Sighted:
        seen = await looking.look(connection, self.replica_set)
        if self.replica_set not in seen.generations:
            msg = f"there is no replica set {self.replica_set} any more"
            raise ConfigError(msg)
        return await self._known.sighted(connection, self.replica_set, seen)

    def _show(self, seen: Sighted) -> None:
        page = snapshot(self.replica_set, seen, problems(seen.overview))
        self._tell(self._story.told(page | dict(self._own()), seen.overview.at.timestamp()))

    def _miss(self, headline: str, why: str) -> None:
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        before = self._page or nothing_seen(self.replica_set, now) | dict(self._own())
        since = before["database"]["since"] or now
        self._tell(before | {"database": {"state": "away", "since": since, "headline": headline, "reason": why}})

    def _tell(self, page: Page) -> None:
        patch = _message("patch", merge_patch(self._page or {}, page))
        self._page = page
        for viewer in list(self._viewers):
            if viewer.begun:
                self._send(viewer, patch)
            else:
                self._begin(viewer, page)

    def _begin(self, viewer: _Viewer, page: Page) -> None:
        viewer.begun = True
        self._send(viewer, _message("snapshot", page | {"history": self._story.history(page["at"])}))

    def _send(self, viewer: _Viewer, message: bytes) -> None:
        try:
            viewer.messages.send_nowait(message)
        except anyio.WouldBlock:
            self._discard(viewer)
            viewer.cut()


class Known:
    """What is read again only when it has changed: settled generations, and why keys fail."""

    def __init__(self) -> None:
        """Nothing is known."""
        self._rebalances: dict[int, tuple[GenerationRow, Sequence[AdoptionRow]]] = {}
        self._failing: int | None = None
        self._failures: Mapping[str, Any] = {}

    async def sighted(self, connection: AnyConnection, replica_set: str, seen: Seen) -> Sighted:
        """Return what a look has shown, and what there is besides for the page."""
        await self._read_rebalances(connection, replica_set, seen.generations[replica_set])
        await self._read_failures(connection, replica_set)
        return Sighted(
            overview=overview(seen),
            replica_sets=await rows.replica_sets(connection),
            rebalances=list(self._rebalances.values())[-REBALANCES:],
            **self._failures,
        )

    async def _read_rebalances(self, connection: AnyConnection, replica_set: str, now: GenerationSeen | None) -> None:
        newest = max(self._rebalances, default=0)
        if now is None or now.number < newest:  # removed and begun anew, or a server that has lost the last ones
            self._rebalances, newest = {}, 0
        settled = newest and self._rebalances[newest][0].completed_at is not None
        for each in await rows.rebalances(connection, replica_set, newest + 1 if settled else newest):
            self._rebalances[each[0].number] = each
        for number in sorted(self._rebalances)[:-REBALANCES]:
            del self._rebalances[number]

    async def _read_failures(self, connection: AnyConnection, replica_set: str) -> None:
        failing = await rows.failing(connection, replica_set)
        if failing != self._failing:
            causes, more = await rows.causes(connection, replica_set)
            parked = await rows.parked(connection, replica_set)
            self._failing, self._failures = failing, {"causes": causes, "more_causes": more, "parked": parked}


def _headline(error: ReactiveOrchError) -> str:
    if isinstance(error, Locked):
        return "The page waits for a lock"
    if isinstance(error, Unavailable):
        return "The database cannot be reached"
    return "Nothing can be seen of the replica set"


def _message(event: str, data: Mapping[str, Any]) -> bytes:
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    return f"event: {event}\ndata: {text}\n\n".encode()
