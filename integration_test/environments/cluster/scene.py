"""Workers and applications that reach a cluster in both ways, by its hosts and by a proxy, and what becomes of them."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from integration_test.environments.cluster.application import UNREACHABLE, Application, server_of, to_primary
from integration_test.environments.cluster.patroni import PATIENCE_S
from integration_test.harness.checkers import assert_each_once, assert_in_order, wait_all_handle, wait_handled
from integration_test.harness.cluster import migrate
from integration_test.harness.connections import connected, prepared
from integration_test.harness.processes import WorkerProcess
from integration_test.harness.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from integration_test.environments.cluster.patroni import PatroniCluster
    from integration_test.harness.connections import Connection

HOSTS, PROXY = WAYS = ("hosts", "proxy")
"""By a URL that names both nodes, and by HAProxy. Each way has a replica set of its own, and an application."""

WORKERS = ("1", "2", "3")
NEW = "new"
"""The worker that is started in the middle of it."""
NO_PRIMARY = {2, 3}
"""Exit codes of a worker that is started while there is no primary: only a standby answers, or nobody does."""


@dataclass(frozen=True, slots=True)
class Figures:
    """What a change of the primary was for those who were there, in seconds."""

    silence_s: float
    """Nobody appended for so long."""
    back_s: Mapping[str, float]
    """Worker → how long after the first event that the new primary has taken it handled one of that primary's."""

    def slowest_s(self, way: str) -> float:
        """Return the longest of those who were there before."""
        return max(self.back_s[f"{way}-{name}"] for name in WORKERS)


@dataclass(slots=True)
class Scene:
    """What runs on one database of a cluster."""

    patroni: PatroniCluster
    database: str
    stack: contextlib.AsyncExitStack
    workers: dict[str, WorkerProcess] = field(default_factory=dict)
    """By their names."""
    applications: list[Application] = field(default_factory=list)

    def urls(self, way: str) -> list[str]:
        """Return a URL for each address at which the primary may be."""
        addresses = [node.address for node in self.patroni.nodes] if way == HOSTS else [self.patroni.proxy]
        return [f"postgresql://postgres@{address}/{self.database}" for address in addresses]

    async def start(self, way: str, name: str) -> None:
        """Start a worker, again and again, as a supervisor does, while it ends because there is no primary."""
        addresses = self.patroni.hosts if way == HOSTS else self.patroni.proxy
        while True:
            worker = WorkerProcess(f"postgresql://postgres@{addresses}/{self.database}", f"{way}-{name}", way)
            await self.stack.enter_async_context(worker)
            with contextlib.suppress(AssertionError):
                self.workers[worker.name] = await worker.ready(PATIENCE_S)
                return
            assert worker.code in NO_PRIMARY, worker.tail()

    async def server(self) -> str:
        """Return which server is the primary, of those that are well."""
        async with self.primary() as connection:
            return await server_of(connection)

    @contextlib.asynccontextmanager
    async def primary(self) -> AsyncIterator[Connection]:
        """Connect to the primary for the block, when the cluster is well."""
        node, _ = await self.patroni.healthy()
        async with connected(f"postgresql://postgres@{node.address}/{self.database}") as connection:
            yield connection

    async def all_handle(self) -> None:
        """Wait until each worker has handled an event that is appended from now on."""
        async with self.primary() as connection:
            for way in WAYS:
                ours = [name for name in self.workers if name.startswith(way)]
                await wait_all_handle(connection, ours, replica_set=way, timeout_s=PATIENCE_S)

    async def nobody_is_ready(self) -> None:
        """Wait until each worker says that it is not, and check that nobody is to start it again for that."""
        for worker in list(self.workers.values()):
            await wait_until(functools.partial(_is_not_ready, worker), what=f"{worker.name} is not ready")
            assert await worker.probe("livez") == 200, worker.name

    async def acknowledged(self, more: int) -> None:
        """Wait until so many more events have been acknowledged than now."""

        def known() -> int:
            return sum(len(application.acknowledged) for application in self.applications)

        async def enough() -> bool:
            return known() >= target

        target = known() + more
        await wait_until(enough, what=f"{more} more events are acknowledged")

    async def goes_on_after(self, before: str) -> Figures:
        """Wait until each worker handles what was written by another server than before; return how that went."""
        expected = {f"{way}-{name}" for way in WAYS for name in (*WORKERS, NEW)}

        async def all_of_them() -> Figures | None:
            found = await self._looked(before)
            return found if found and found.back_s.keys() == expected else None

        return await wait_until(all_of_them, PATIENCE_S, f"{sorted(expected)} handle what the new primary has")

    async def _looked(self, before: str) -> Figures | None:
        """Return what is to be seen on another server than before; None when there is none."""
        for url in self.urls(HOSTS):
            with contextlib.suppress(*UNREACHABLE):
                connection = await to_primary(url)
                try:
                    server = await server_of(connection)
                    if server != before and (silence_s := await connection.fetchval(_SILENCE, server)) is not None:
                        return Figures(silence_s, dict(map(tuple, await connection.fetch(_BACK, server))))
                finally:
                    connection.terminate()
        return None

    async def check(self) -> int:
        """Check what must be true of all that was appended; return how many acknowledged events are not in the log."""
        for application in self.applications:
            await application.stop()
        for worker in self.workers.values():
            worker.assert_running()
        async with self.primary() as connection:
            for way in WAYS:
                await wait_handled(connection, replica_set=way, timeout_s=PATIENCE_S)
                await assert_each_once(connection, replica_set=way)
            await assert_in_order(connection)
            log = {row["event_id"] for row in await connection.fetch("SELECT event_id FROM reactive_orch.events")}
        return sum(len(application.acknowledged - log) for application in self.applications)


async def _is_not_ready(worker: WorkerProcess) -> bool:
    return await worker.probe("readyz") == 503


_SILENCE = """
SELECT extract(epoch FROM min(e.created_at) FILTER (WHERE e.correlation_id = $1)
                        - max(e.created_at) FILTER (WHERE e.correlation_id <> $1))::float8
FROM reactive_orch.events e
"""
_BACK = """
SELECT h.worker, extract(epoch FROM min(h.at) - (
    SELECT min(e.created_at) FROM reactive_orch.events e WHERE e.correlation_id = $1))::float8
FROM public.handled h JOIN reactive_orch.events e ON e.global_position = h.position
WHERE e.correlation_id = $1 GROUP BY 1
"""


@contextlib.asynccontextmanager
async def at_work(patroni: PatroniCluster, database: str) -> AsyncIterator[Scene]:
    """Let three workers and an application for each way work on a new database for the block."""
    primary, _ = await patroni.healthy()
    async with connected(f"postgresql://postgres@{primary.address}/postgres") as connection:
        await connection.execute(f"CREATE DATABASE {database}")
    async with contextlib.AsyncExitStack() as stack:
        scene = Scene(patroni, database, stack)
        migrate(scene.urls(PROXY)[0])
        async with prepared(scene.urls(PROXY)[0]):
            pass
        async with asyncio.TaskGroup() as tasks:
            for way in WAYS:
                for name in WORKERS:
                    tasks.create_task(scene.start(way, name))
        for way in WAYS:
            scene.applications.append(await stack.enter_async_context(Application(scene.urls(way))))
        await scene.all_handle()
        yield scene
