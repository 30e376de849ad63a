"""Three workers on hosts of their own, and writers who append all the time; what hits one of them is measured."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from integration_test.environments.hosts.figures import measured
from integration_test.harness.checkers import checked, owners, wait_all_handle, wait_settled
from integration_test.harness.connections import prepared
from integration_test.harness.load import Load
from integration_test.harness.processes import Process, WorkerProcess
from integration_test.harness.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from integration_test.environments.hosts.figures import Figures
    from integration_test.environments.hosts.network import Host, Network, Server
    from integration_test.harness.connections import Connection

HIT, OTHERS = "w1", ("w2", "w3")
PROJECTION = "integration_test.environments.hosts.projections:handled"

# What workers without options promise, and some seconds for slow machines:
TAKEN_OVER_S = 10 + 5
"""Without a heartbeat for `--stale-after` a worker is removed by the others."""
NOTICED_S = 2 + 3 + 3
"""Each `--heartbeat` wants an answer within 3 s, else all connections are made anew."""
BACK_S = 5 + 5 + 5
"""A worker that was cut off tries at least every 5 s, and a try takes 5 s at most."""
OTHERS_WAIT_S = 5.0
"""Others do not wait at all."""


@dataclass(kw_only=True)
class Scene:
    """What is there while the network fails."""

    network: Network
    server: Server
    connection: Connection
    """By the server's socket: that never fails."""
    load: Load
    hosts: Mapping[str, Host]
    worker: WorkerProcess
    """The one that is hit."""
    wire: Process | None
    """What its frames pass, if that was asked for."""
    partitions: frozenset[int]
    """What it had before."""

    @property
    def host(self) -> Host:
        """Of the worker that is hit."""
        return self.hosts[HIT]

    def cut_off(self, *rules: str, host: Host | None = None) -> contextlib.AbstractContextManager[None]:
        """Let the router treat that host, or another one, by these rules for the block; `{}` is the way to it."""
        return self.network.ruled(*(rule.format((host or self.host).link) for rule in rules))

    async def clock(self) -> Any:
        """Return the time, by the clock that tells when events were appended and handled."""
        return await self.connection.fetchval("SELECT clock_timestamp()")

    async def taken_over(self, began: Any) -> None:
        """Wait until others have handled what was appended to most partitions of the worker that was hit."""

        async def none_waits() -> bool:
            row = await self.connection.fetchrow(_WAIT, sorted(self.partitions), HIT, began)
            assert row is not None
            return 2 * row["appended"] > len(self.partitions) and not row["waiting"]

        await wait_until(none_waits, 2 * TAKEN_OVER_S, "others handle what it had")

    async def holds_a_batch(self) -> None:
        """Wait until a batch of the worker that is to be hit waits for its handler, its checkpoints swapped."""

        async def holds() -> bool:
            return bool(await self.connection.fetchval(_HOLDS, self.host.address))

        await wait_until(holds, what="a batch is in hand")

    async def all_handle(self) -> None:
        """Wait until each worker has handled events from now on."""
        await wait_all_handle(self.connection, self.hosts)

    async def healed(self, began: Any) -> Figures:
        """Wait until each worker has handled events again, now that the failure is over, and measure."""
        ended = await self.clock()
        await self.all_handle()
        return await self.figures(began, ended)

    async def figures(self, began: Any, ended: Any = None) -> Figures:
        """End the load, check that each event was handled once and in order, and measure."""
        await self.load.stop()
        await checked(self.connection)
        await self.load.assert_in_log(self.connection)
        return await measured(self.connection, HIT, self.partitions, began, ended)


_WAIT = """
SELECT count(*) AS appended, count(*) FILTER (WHERE NOT EXISTS (
    SELECT FROM public.handled h JOIN reactive_orch.events e ON e.global_position = h.position
    WHERE h.partition = a.partition AND h.worker <> $2 AND e.created_at > $3)) AS waiting
FROM (SELECT DISTINCT e.partition FROM reactive_orch.events e
      WHERE e.partition = ANY ($1::smallint[]) AND e.created_at BETWEEN $3 AND $3 + interval '5 s') a
"""
"""To how many of its partitions something was appended, and of those, where others have not handled any of it."""

_HOLDS = """
SELECT count(*) FROM pg_stat_activity a
WHERE a.client_addr = $1::text::inet AND a.state = 'idle in transaction'
  AND a.state_change < clock_timestamp() - interval '1 s'
"""


class ThreeWorkers(Protocol):
    """`three_workers` in a network, on a server, with a database."""

    def __call__(
        self,
        *,
        options: Sequence[str] = (),
        wire: Sequence[str] = (),
        remembering: bool = False,
        env: Mapping[str, str] | None = None,
    ) -> contextlib.AbstractAsyncContextManager[Scene]:
        """Start them."""
        ...


@contextlib.asynccontextmanager
async def three_workers(  # noqa: PLR0913 - three are given by the fixture
    network: Network,
    server: Server,
    url: str,
    *,
    options: Sequence[str] = (),
    wire: Sequence[str] = (),
    remembering: bool = False,
    env: Mapping[str, str] | None = None,
) -> AsyncIterator[Scene]:
    """Start them with these options, and the load, and wait until each handles.

    The one that is to be hit has this `env` besides, and is behind a wire with these options, if any; the router may be
    one that remembers connections.
    """
    async with contextlib.AsyncExitStack() as stack:
        if remembering:
            stack.enter_context(network.remembering())
        passing, hosts = await _hosts(stack, network, wire)
        workers = {
            name: WorkerProcess(
                server.address(url),
                name,
                projections=[PROJECTION],
                options=options,
                env=env if name == HIT else None,
                through=host.inside,
            )
            for name, host in hosts.items()
        }
        connection = await stack.enter_async_context(prepared(url))
        await asyncio.gather(*map(stack.enter_async_context, workers.values()))
        await wait_settled(connection, members=len(workers))
        load = await stack.enter_async_context(Load(url, writers=2, keys=200, pause_s=0.02))
        await wait_all_handle(connection, workers)
        yield Scene(
            network=network,
            server=server,
            connection=connection,
            load=load,
            hosts=hosts,
            worker=workers[HIT],
            wire=passing,
            partitions=await _partitions_of(connection, workers[HIT]),
        )


async def _hosts(
    stack: contextlib.AsyncExitStack, network: Network, wire: Sequence[str]
) -> tuple[Process | None, Mapping[str, Host]]:
    others = {name: stack.enter_context(network.host()) for name in OTHERS}
    if not wire:
        return None, {HIT: stack.enter_context(network.host()), **others}
    host, passing = await stack.enter_async_context(network.host_by_wire(*wire))
    return passing, {HIT: host, **others}


async def _partitions_of(connection: Connection, worker: WorkerProcess) -> frozenset[int]:
    member = await connection.fetchval(_MEMBER, str(worker.pid))
    return frozenset(n for n, owner in enumerate(await owners(connection)) if owner == member)


_MEMBER = "SELECT m.id FROM reactive_orch.members m WHERE split_part(m.name, ':', 2) = $1"
