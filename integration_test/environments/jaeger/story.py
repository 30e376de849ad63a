"""What happens to a replica set on one morning, while the whole stack looks on; and what was recorded of it."""

from __future__ import annotations

import contextlib
import signal
import time
from typing import TYPE_CHECKING, Self

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.trace import SpanKind

from integration_test.environments.jaeger.asking import Jaeger, get
from integration_test.environments.jaeger.stack import Stack
from integration_test.harness import points
from integration_test.harness.arena import WORKER
from integration_test.harness.checkers import SETTLED, generations, wait_all_handle, wait_settled
from integration_test.harness.command_line import run
from integration_test.harness.connections import prepared
from integration_test.harness.load import Load, append_events, append_until_deadlock
from integration_test.harness.processes import WorkerProcess
from integration_test.harness.projections import POISON
from integration_test.harness.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Sequence

    import asyncpg

    from integration_test.harness.connections import Connection

SHOP = "shop"
"""The replica set: the one that the dashboard looks for in Jaeger."""

_QUICK = ("--heartbeat", "0.3", "--stale-after", "2")
_SLOW_APPEND_S = 1.5
"""So slow that the collector keeps it for that alone."""


class Story:
    """An async context manager: on entry everything happens, and at its end four workers are still there."""

    def __init__(self, url: str) -> None:
        """Prepare."""
        self.url = url
        self.stack = Stack()
        self.jaeger = Jaeger(self.stack.jaeger_url)
        self.workers: dict[str, WorkerProcess] = {}
        self.ended: list[WorkerProcess] = []
        self.killed = self.frozen = 0
        """Members, by what was done to them."""
        self.append_trace = ""
        """Of the append of an event that fails."""
        self._exit = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Self:
        async with contextlib.AsyncExitStack() as stack:
            await stack.enter_async_context(self.stack)
            self.connection: Connection = await stack.enter_async_context(prepared(self.url))
            self._exit = stack
            async with Load(self.url):
                await self._happen()
            self._exit = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._exit.aclose()

    async def _happen(self) -> None:
        await self._start("a")
        await wait_until(self._is_scraped, what="Prometheus has seen the first generation")
        await self._start("b")
        await self._start("c", more=["handled_too"])  # which nobody runs when it is dead
        await wait_all_handle(self.connection, "abc", replica_set=SHOP)
        await self.workers["b"].stop()
        await self._gone("b")
        await self._start("d")
        await self._kill("c")
        await self._start("e")
        await self._freeze("d")
        await self._let_die_who_decides()
        await append_until_deadlock(self.connection)
        await self._fail()
        await self._pause()
        await wait_until(self._is_told, timeout_s=60, what="the end of each generation is in Jaeger")

    async def _start(
        self, name: str, module: str = "reactive_orch", more: Sequence[str] = (), **env: str
    ) -> WorkerProcess:
        projections = ["handled", "poisoned", "sharing", *more]
        exporting = self.stack.environment(OTEL_BSP_SCHEDULE_DELAY="200", **env)
        worker = WorkerProcess(self.url, name, SHOP, projections, (*_QUICK, "--retries", "1"), exporting, module=module)
        self.workers[name] = await self._exit.enter_async_context(worker)
        await worker.said("health http")
        await self._settled()
        self.stack.prometheus.scrapes(self.workers.values())
        return worker

    async def _is_scraped(self) -> bool:
        found = await get(f"{self.stack.prometheus.url}/api/v1/query", query="reactive_orch_generation")
        return bool(found["data"]["result"])

    async def _settled(self) -> None:
        """Wait until all that live are members, and know it."""

        async def settled() -> asyncpg.Record | None:
            living = sum(worker.running for worker in self.workers.values())
            return await self.connection.fetchrow(SETTLED, SHOP, living)

        await wait_until(settled, what="all are settled")

    async def _gone(self, name: str) -> None:
        self.ended.append(self.workers.pop(name))
        self.stack.prometheus.scrapes(self.workers.values())
        await self._settled()

    async def _kill(self, name: str) -> None:
        await wait_until(self._is_told, timeout_s=60, what="what it has still to send would be missed for ever")
        self.killed = await self.workers[name].member()
        self.workers[name].send(signal.SIGKILL)
        await self._gone(name)

    async def _freeze(self, name: str) -> None:
        """Stop a worker for longer than it may be silent, then let it go on."""
        self.frozen = await self.workers[name].member()
        self.workers[name].send(signal.SIGSTOP)
        await wait_settled(self.connection, SHOP, members=len(self.workers) - 1)
        self.workers[name].send(signal.SIGCONT)
        await self._settled()

    async def _let_die_who_decides(self) -> None:
        """Let a worker die just after the commit of the first generation that it writes, before it tells of it."""
        while not await self._written_by_the_doomed():  # or in vain: another one was quicker
            doomed = await self._start("doomed", WORKER, **{points.RULES: "announce.after=kill@1"})
            while doomed.running:  # another one was the first to notice that it had come
                await self._start("another")
                await self.workers["another"].stop()
                await self._gone("another")
            await self._gone("doomed")

    async def _written_by_the_doomed(self) -> list[asyncpg.Record]:
        rows = await self.rows()
        died = {member for row in rows if row["reason"] == "death" for member in row["subjects"]} - {self.killed}
        return [row for row in rows if row["initiator"] in died]

    async def rootless(self) -> asyncpg.Record:
        """Return the generation of whom the decision has killed."""
        (written,) = await self._written_by_the_doomed()
        return written

    async def rows(self) -> list[asyncpg.Record]:
        """Return the generations."""
        return await generations(self.connection, SHOP)

    async def acknowledged(self) -> dict[int, list[int]]:
        """Return generation → who has acknowledged it."""
        return {row["generation"]: row["members"] for row in await self.connection.fetch(_ACKNOWLEDGED, SHOP)}

    async def _is_told(self) -> bool:
        acknowledged = await self.acknowledged()
        for row in await self.rows():
            try:
                trace = await self.jaeger.trace(trace_of(row))
            except AssertionError:  # not found
                return False
            adopted = [span for span in trace.named("adopt") if span.get("outcome") == "acknowledged"]
            if not trace.named("complete") or len(adopted) < len(acknowledged.get(row["number"], ())):
                return False
        return True

    async def _pause(self) -> None:
        words = ("pause", "--replica-set", SHOP, "--projection", "handled", "--database-url", self.url)
        (await run(*words)).done()
        await wait_until(lambda: self._shows("reactive_orch_projection_resting"), what="the pause is seen")

    async def _shows(self, metric: str) -> bool:
        found = await get(f"{self.stack.prometheus.url}/api/v1/query", query=f"{metric} > 0")
        return bool(found["data"]["result"])

    async def _fail(self) -> None:
        """Append an event that fails, in a slow span of the application's own."""
        exporter = OTLPSpanExporter(f"{self.stack.environment()['OTEL_EXPORTER_OTLP_ENDPOINT']}/v1/traces")
        provider = TracerProvider(resource=Resource.create({"service.name": "till"}))
        provider.add_span_processor(SimpleSpanProcessor(exporter))
        began = time.time_ns() - int(_SLOW_APPEND_S * 1e9)
        tracer = provider.get_tracer("till")
        with tracer.start_as_current_span("append Poison", kind=SpanKind.PRODUCER, start_time=began) as span:
            await append_events(self.connection, 1, event_type=POISON)
        self.append_trace = f"{span.get_span_context().trace_id:032x}"
        provider.shutdown()


def trace_of(row: asyncpg.Record) -> str:
    """Return the trace id of a generation."""
    return str(row["traceparent"].split("-")[1])


_ACKNOWLEDGED = """
SELECT a.generation, array_agg(a.member ORDER BY a.member) AS members FROM reactive_orch.adoptions a
WHERE a.replica_set = $1 GROUP BY a.generation
"""
