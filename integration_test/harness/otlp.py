"""A receiver of OTLP as collectors are, over HTTP and gRPC: keeps what it is sent, refuses or hangs when told to."""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Self, TypeAlias

import grpc
from aiohttp import web
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2_grpc import (
    MetricsServiceServicer,
    add_MetricsServiceServicer_to_server,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import (
    TraceServiceServicer,
    add_TraceServiceServicer_to_server,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

Protocol: TypeAlias = Literal["http/protobuf", "grpc"]
Mood: TypeAlias = Literal["well", "refuses", "hangs"]

RO = "reactive_orch."


@dataclass(frozen=True, slots=True)
class Span:
    """A span as it was received."""

    trace: str
    id: str
    parent: str
    name: str
    kind: str
    attributes: Mapping[str, Any]
    links: tuple[tuple[str, str], ...]
    error: bool
    events: int
    start_ns: int
    end_ns: int
    instance: str

    def get(self, key: str) -> Any:
        """Return one of this package's attributes."""
        return self.attributes.get(RO + key)


@dataclass(frozen=True, slots=True)
class Series:
    """What a metric was received as."""

    unit: str
    kind: str
    keys: frozenset[frozenset[str]]


class Receiver:
    """An async context manager; listens on free ports."""

    def __init__(self, mood: Mood = "well") -> None:
        self.mood = mood
        self.spans: list[Span] = []
        self.processes: dict[str, Mapping[str, Any]] = {}
        """What the spans of an instance say of its process."""
        self.metrics: dict[str, Series] = {}
        self.points: dict[str, dict[frozenset[tuple[str, Any]], Any]] = defaultdict(dict)
        self.raw: list[bytes] = []
        """Every body, uncompressed."""
        self.encodings: set[str] = set()
        self.requests = 0
        self._released = asyncio.Event()
        self._stack = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.router.add_post("/v1/traces", self._http_traces)
        app.router.add_post("/v1/metrics", self._http_metrics)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        self._stack.push_async_callback(runner.cleanup)
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self._http_port = int(runner.addresses[0][1])
        server = grpc.aio.server()
        add_TraceServiceServicer_to_server(_Traces(self), server)  # type: ignore[no-untyped-call]
        add_MetricsServiceServicer_to_server(_Metrics(self), server)  # type: ignore[no-untyped-call]
        self._grpc_port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        self._stack.push_async_callback(server.stop, 0.1)
        self._stack.callback(self._released.set)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    def env(self, protocol: Protocol = "http/protobuf", **more: str) -> dict[str, str]:
        """Return the variables that make a process export here."""
        port = self._http_port if protocol == "http/protobuf" else self._grpc_port
        return {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}",
            "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
            "OTEL_EXPORTER_OTLP_COMPRESSION": "gzip",
            "OTEL_METRIC_EXPORT_INTERVAL": "300",
            "OTEL_BSP_SCHEDULE_DELAY": "200",
            **more,
        }

    async def answer(self) -> bool:
        """Behave according to the mood; False: refuse."""
        self.requests += 1
        if self.mood == "hangs":
            await self._released.wait()
        return self.mood == "well"

    async def _http_traces(self, request: web.Request) -> web.Response:
        if not await self._accepts(request):
            return web.Response(status=503)
        self.take_traces(ExportTraceServiceRequest.FromString(await request.read()))
        return web.Response(body=ExportTraceServiceResponse().SerializeToString())

    async def _http_metrics(self, request: web.Request) -> web.Response:
        if not await self._accepts(request):
            return web.Response(status=503)
        self.take_metrics(ExportMetricsServiceRequest.FromString(await request.read()))
        return web.Response(body=ExportMetricsServiceResponse().SerializeToString())

    async def _accepts(self, request: web.Request) -> bool:
        self.encodings.add(request.headers.get("Content-Encoding", ""))
        return await self.answer()

    def take_traces(self, request: ExportTraceServiceRequest) -> None:
        """Keep spans."""
        self.raw.append(request.SerializeToString())
        for resource in request.resource_spans:
            attributes = _values(resource.resource.attributes)
            instance = attributes["service.instance.id"]
            self.processes[instance] = attributes
            self.spans += [_span(span, instance) for scope in resource.scope_spans for span in scope.spans]

    def take_metrics(self, request: ExportMetricsServiceRequest) -> None:
        """Keep metrics."""
        self.raw.append(request.SerializeToString())
        for resource in request.resource_metrics:
            for metric in (metric for scope in resource.scope_metrics for metric in scope.metrics):
                kind = {"sum": "counter"}.get(str(metric.WhichOneof("data")), str(metric.WhichOneof("data")))
                points = getattr(metric, str(metric.WhichOneof("data"))).data_points
                keys = frozenset(frozenset(_values(point.attributes)) for point in points)
                known = self.metrics.get(metric.name)
                self.metrics[metric.name] = Series(metric.unit, kind, keys | (known.keys if known else frozenset()))
                for point in points:
                    self.points[metric.name][frozenset(_values(point.attributes).items())] = point

    def named(self, prefix: str) -> list[Span]:
        """Return the spans whose names begin so."""
        return [span for span in self.spans if span.name.startswith(prefix)]

    def tree(self) -> str:
        """Return the rebalance traces, drawn."""
        lines: list[str] = []
        traces = defaultdict(list)
        for span in self.spans:
            if span.get("coordination"):
                traces[span.trace].append(span)
        for trace, members in traces.items():
            lines.append(trace)
            ids = {span.id for span in members}
            for root in (span for span in members if span.parent not in ids):
                lines += _drawn(root, members, 1)
        return "\n".join(lines)


def _drawn(span: Span, members: Iterable[Span], depth: int) -> list[str]:
    members = list(members)
    took = (span.end_ns - span.start_ns) / 1e6
    lines = [
        f"{'  ' * depth}{span.name} (generation {span.get('generation')}, member {span.get('member.id')}) {took:.1f} ms"
    ]
    for child in (other for other in members if other.parent == span.id):
        lines += _drawn(child, members, depth + 1)
    return lines


class _Traces(TraceServiceServicer):
    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver

    async def Export(self, request: Any, context: Any) -> ExportTraceServiceResponse:  # noqa: N802 - gRPC's name
        if not await self._receiver.answer():
            await context.abort(grpc.StatusCode.UNAVAILABLE)
        self._receiver.take_traces(request)
        return ExportTraceServiceResponse()


class _Metrics(MetricsServiceServicer):
    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver

    async def Export(self, request: Any, context: Any) -> ExportMetricsServiceResponse:  # noqa: N802 - gRPC's name
        if not await self._receiver.answer():
            await context.abort(grpc.StatusCode.UNAVAILABLE)
        self._receiver.take_metrics(request)
        return ExportMetricsServiceResponse()


_KINDS = {1: "INTERNAL", 2: "SERVER", 3: "CLIENT", 4: "PRODUCER", 5: "CONSUMER"}
_ERROR = 2


def _span(span: Any, instance: str) -> Span:
    return Span(
        span.trace_id.hex(),
        span.span_id.hex(),
        span.parent_span_id.hex(),
        span.name,
        _KINDS[span.kind],
        _values(span.attributes),
        tuple((link.trace_id.hex(), link.span_id.hex()) for link in span.links),
        span.status.code == _ERROR,
        len(span.events),
        span.start_time_unix_nano,
        span.end_time_unix_nano,
        instance,
    )


def _values(attributes: Iterable[Any]) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, str(pair.value.WhichOneof("value"))) for pair in attributes}
