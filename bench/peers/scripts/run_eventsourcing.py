"""eventsourcing: an event store. One ProjectionRunner follows it, its view recorded together with the position."""

from __future__ import annotations

import asyncio
import contextlib
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from uuid import UUID

from eventsourcing.application import Application
from eventsourcing.domain import Aggregate, event
from eventsourcing.postgres import PostgresTrackingRecorder
from eventsourcing.projection import Projection, ProjectionRunner
from protocol import EFFECT, PID, Script

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from eventsourcing.persistence import Tracking
    from protocol import Put

ONE = EFFECT.format("%s", "%s")


class Order(Aggregate):
    """Placed once."""

    @event("Placed")
    def __init__(self, n: int) -> None:
        self.n = n


class Orders(Application[UUID]):
    """What is projected."""


class Effects(PostgresTrackingRecorder):
    """The view."""

    def insert(self, n: int, tracking: Tracking) -> None:
        """Insert a row and move the position, in one transaction."""
        with self.datastore.transaction(commit=True) as cursor:
            self._insert_tracking(cursor, tracking)
            cursor.execute(ONE, (n, PID), prepare=True)


class OrdersProjection(Projection[Effects]):
    """Calls what the script was asked to do."""

    name = "orders"
    handle: Any = None

    def process_event(self, domain_event: Any, tracking: Tracking) -> None:
        """Handle an event."""
        type(self).handle(self.view, domain_event.n, tracking)


class Eventsourcing(Script):
    """Events that stay, handled by one reader."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        address = urlsplit(url)
        self._env = {
            "PERSISTENCE_MODULE": "eventsourcing.postgres",
            "POSTGRES_DBNAME": address.path.lstrip("/"),
            "POSTGRES_HOST": str(address.hostname),
            "POSTGRES_PORT": str(address.port),
            "POSTGRES_USER": str(address.username),
            "POSTGRES_PASSWORD": "none",
        }

    async def install(self) -> None:
        """Create the tables."""
        with self._runner():
            pass

    async def fill(self, events: int) -> None:
        """Commit many events at once."""
        with Orders(self._env) as app:
            app.save(*(Order(n) for n in range(1, events + 1)))

    async def work(self, mode: str) -> str:
        """Start a runner."""
        OrdersProjection.handle = staticmethod(getattr(self, f"_{mode}"))
        self._running = self._runner()
        self._running.__enter__()
        self.background(asyncio.to_thread(self._running.run_forever))
        return ""

    def _runner(self) -> ProjectionRunner[Orders, Effects]:
        return ProjectionRunner(
            application_class=Orders, projection_class=OrdersProjection, view_class=Effects, env=self._env
        )

    @contextlib.asynccontextmanager
    async def writer(self) -> AsyncIterator[Put]:
        """Connect, with a thread of its own: the library waits for its database."""
        with Orders(self._env) as app, ThreadPoolExecutor(1) as thread:
            loop = asyncio.get_running_loop()
            yield lambda n: loop.run_in_executor(thread, lambda: app.save(Order(n)))

    def _noop(self, view: Effects, n: int, tracking: Tracking) -> None:  # noqa: ARG002
        view.insert_tracking(tracking)
        self.saw()

    def _clock(self, view: Effects, n: int, tracking: Tracking) -> None:
        self.note(n)
        view.insert_tracking(tracking)

    def _insert(self, view: Effects, n: int, tracking: Tracking) -> None:
        view.insert(n, tracking)
        self.saw()


script = Eventsourcing
