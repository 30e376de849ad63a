"""The OpenTelemetry SDK, set up. Imported only when something is to be exported.

Coordination is always sampled and has a queue of its own that is sent at once, so that neither the ratio nor the volume
of batches costs a rebalance its spans. A dead or slow endpoint costs nothing but the spans: queues are bounded, export
happens in threads that nobody waits for, and the end waits for a second.
"""

from __future__ import annotations

import threading
import time
from importlib import metadata
from typing import TYPE_CHECKING, Any

from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import ConsoleMetricExporter, PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, Sampler, SamplingResult

from reactive_orch.telemetry.logs import INSTANCE_ID

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.metrics.export import MetricExporter
    from opentelemetry.sdk.trace.export import SpanExporter

    from reactive_orch.telemetry.exporting import Route

COORDINATION = "reactive_orch.coordination"
COORDINATION_DELAY_MS = 100
SHUTDOWN_S = 1.0


def set_up(traces: Route, measures: Route) -> list[Any]:
    """Set the global providers, unless the application has; return those to shut down."""
    made: list[Any] = []
    resource = _resource()
    if measures.exporter != "none" and not isinstance(metrics.get_meter_provider(), MeterProvider):
        reader = PeriodicExportingMetricReader(_metric_exporter(measures))
        made.append(MeterProvider([reader], resource, shutdown_on_exit=False))
        metrics.set_meter_provider(made[-1])
    if traces.exporter != "none" and not isinstance(trace.get_tracer_provider(), TracerProvider):
        provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        if provider.sampler is not ALWAYS_OFF:
            provider.sampler = _CoordinationAlways(provider.sampler)
        provider.add_span_processor(_Queues(traces))
        made.append(provider)
        trace.set_tracer_provider(provider)
    return made


def shut_down(providers: list[Any]) -> None:
    """Send what is left, within bounded time."""
    threads = [threading.Thread(target=provider.shutdown, daemon=True) for provider in providers]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + SHUTDOWN_S
    for thread in threads:
        thread.join(max(deadline - time.monotonic(), 0.0))


def _resource() -> Resource:
    ours = {"service.instance.id": INSTANCE_ID, "service.version": metadata.version("reactive_orch")}
    given = Resource.create()
    if str(given.attributes.get("service.name", "")).startswith("unknown_service"):
        given = given.merge(Resource({"service.name": "reactive_orch"}))
    return Resource(ours).merge(given)


class _CoordinationAlways(Sampler):
    """What the environment says, but a rebalance is always seen."""

    def __init__(self, rest: Sampler) -> None:
        self._rest = rest

    def should_sample(
        self, parent_context: Context | None, trace_id: int, name: str, *args: Any, **kwargs: Any
    ) -> SamplingResult:
        given = kwargs.get("attributes") or (args[1] if len(args) > 1 else None) or {}
        sampler = ALWAYS_ON if given.get(COORDINATION) else self._rest
        return sampler.should_sample(parent_context, trace_id, name, *args, **kwargs)

    def get_description(self) -> str:
        return f"CoordinationAlways{{{self._rest.get_description()}}}"


class _Queues(SpanProcessor):
    """One queue for coordination, sent at once; one for the rest, as the environment says."""

    def __init__(self, route: Route) -> None:
        self._coordination = BatchSpanProcessor(_span_exporter(route), schedule_delay_millis=COORDINATION_DELAY_MS)
        self._rest = BatchSpanProcessor(_span_exporter(route))

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Nothing to do."""

    def on_end(self, span: ReadableSpan) -> None:
        queue = self._coordination if (span.attributes or {}).get(COORDINATION) else self._rest
        queue.on_end(span)

    def shutdown(self) -> None:
        for queue in (self._coordination, self._rest):
            queue.shutdown()  # type: ignore[no-untyped-call]

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._coordination.force_flush(timeout_millis)


def _span_exporter(route: Route) -> SpanExporter:
    if route.exporter == "console":
        return ConsoleSpanExporter()
    if route.protocol == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as OverGrpc

        return OverGrpc()
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    return OTLPSpanExporter()


def _metric_exporter(route: Route) -> MetricExporter:
    if route.exporter == "console":
        return ConsoleMetricExporter()
    if route.protocol == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter as OverGrpc

        return OverGrpc()
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter

    return OTLPMetricExporter()
