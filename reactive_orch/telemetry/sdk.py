"""The OpenTelemetry SDK, set up. Imported only when something is to be exported.

Coordination is always sampled, unless the sampler is `always_off`, and has a queue of its own that is sent at once: so
neither the ratio nor the volume of batches costs a rebalance its spans. A busy process sends the spans of some batches
each second, as many as cost little; OTEL_TRACES_SAMPLER, if it is set, decides instead. A dead or slow endpoint costs
nothing but the data: queues are bounded, nobody waits for the threads that export, and the end waits for a second.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from dataclasses import replace
from functools import partial
from importlib import metadata
from typing import TYPE_CHECKING, Any, TypeVar

from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    ConsoleMetricExporter,
    Histogram,
    HistogramDataPoint,
    MetricExporter,
    MetricExportResult,
    MetricsData,
    PeriodicExportingMetricReader,
)
from opentelemetry.sdk.metrics.export import Metric as ExportedMetric
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, Sampler, SamplingResult

from reactive_orch.telemetry.logs import INSTANCE_ID
from reactive_orch.telemetry.metric_names import SCOPE, Metric
from reactive_orch.telemetry.outage import Outage
from reactive_orch.telemetry.registry import REGISTRY, Distribution, Labels

if TYPE_CHECKING:
    from collections.abc import Callable

    from opentelemetry.context import Context
    from opentelemetry.sdk.trace.export import SpanExporter

    from reactive_orch.telemetry.routes import Route

_Exporter = TypeVar("_Exporter", "SpanExporter", MetricExporter)

COORDINATION = "reactive_orch.coordination"
COORDINATION_DELAY_MS = 100
SHUTDOWN_S = 1.0
BATCHES_PER_S = 20.0
"""A span costs some tenths of a millisecond to make and send: this many take about a percent of a processor."""

_logger = logging.getLogger("reactive_orch")


def set_up(traces: Route, measures: Route) -> Callable[[], None]:
    """Set the global providers, unless the application has; return what shuts them down.

    Raises whatever the SDK raises for a variable that it does not accept.
    """
    made: list[Any] = []
    resource = _resource()
    if measures.exporter != "none" and not isinstance(metrics.get_meter_provider(), MeterProvider):
        made.append(_meter_provider(_watched(_metric_exporter(measures), Outage("metrics")), resource))
        metrics.set_meter_provider(made[-1])
    if traces.exporter != "none" and not isinstance(trace.get_tracer_provider(), TracerProvider):
        provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        if provider.sampler is not ALWAYS_OFF:
            provider.sampler = _Sampler(provider.sampler, None if traces.sampled else Allowance(BATCHES_PER_S))
        provider.add_span_processor(_Queues(traces))
        made.append(provider)
        trace.set_tracer_provider(provider)
    return partial(_shut_down, made)


def _shut_down(providers: list[Any]) -> None:
    """Send what is left, within bounded time."""
    threads = [threading.Thread(target=provider.shutdown, daemon=True) for provider in providers]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + SHUTDOWN_S
    for thread in threads:
        thread.join(max(deadline - time.monotonic(), 0.0))
    if any(thread.is_alive() for thread in threads):
        words = "what was left to export was not taken within %g s and is lost"
        _logger.warning(words, SHUTDOWN_S, extra={"event": "export_unfinished"})


def _resource() -> Resource:
    ours: dict[str, str | int] = {
        "service.instance.id": INSTANCE_ID,
        "service.version": metadata.version("reactive_orch"),
        "host.name": socket.gethostname(),
        "process.pid": os.getpid(),
    }
    given = Resource.create()
    if str(given.attributes.get("service.name", "")).startswith("unknown_service"):
        given = given.merge(Resource({"service.name": "reactive_orch"}))
    return Resource(ours).merge(given)


def _meter_provider(exporter: MetricExporter, resource: Resource) -> MeterProvider:
    # An exporter may want differences instead of totals. Ours are totals, so then the SDK's own histograms do it.
    differences = AggregationTemporality.DELTA in (exporter._preferred_temporality or {}).values()  # noqa: SLF001
    reader = PeriodicExportingMetricReader(exporter if differences else _WithHistograms(exporter))
    provider = MeterProvider([reader], resource, shutdown_on_exit=False)
    REGISTRY.bridge(provider.get_meter(SCOPE), histograms=differences)
    return provider


class _WithHistograms(MetricExporter):
    """Adds our histograms to what the SDK exports, as they lie in memory: so the hot path pays for no instrument."""

    def __init__(self, inner: MetricExporter) -> None:
        super().__init__(inner._preferred_temporality, inner._preferred_aggregation)  # noqa: SLF001
        self._inner = inner
        self._since_ns = time.time_ns()

    def export(self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: Any) -> MetricExportResult:
        for resource in metrics_data.resource_metrics[:1]:
            scope = next((s for s in resource.scope_metrics if s.scope.name == SCOPE), None)
            if scope is not None:
                ours = [self._histogram(metric, list(series.values())) for metric, series in _recorded()]
                added = replace(scope, metrics=[*scope.metrics, *ours])
                scopes = [added if s is scope else s for s in resource.scope_metrics]
                metrics_data = replace(metrics_data, resource_metrics=[replace(resource, scope_metrics=scopes)])
        return self._inner.export(metrics_data, timeout_millis, **kwargs)

    def _histogram(self, metric: Metric, series: list[Distribution]) -> ExportedMetric:
        now_ns = time.time_ns()
        points = [
            HistogramDataPoint(
                attributes=one.attributes,
                start_time_unix_nano=self._since_ns,
                time_unix_nano=now_ns,
                count=sum(one.counts),
                sum=one.total,
                bucket_counts=list(one.counts),
                explicit_bounds=one.bounds,
                min=None,  # type: ignore[arg-type]  # optional in OTLP
                max=None,  # type: ignore[arg-type]
            )
            for one in series
        ]
        data = Histogram(points, AggregationTemporality.CUMULATIVE)
        return ExportedMetric(metric.name, metric.meaning, metric.unit, data)

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        return self._inner.force_flush(timeout_millis)

    def shutdown(self, timeout_millis: float = 30_000, **kwargs: Any) -> None:
        self._inner.shutdown(timeout_millis, **kwargs)


def _recorded() -> list[tuple[Metric, dict[Labels, Distribution]]]:
    return [(metric, dict(series)) for metric, series in REGISTRY.distributions.items() if series]


class Allowance:
    """So many a second. What a quiet second has left may be taken at once, but no more than a second's worth."""

    def __init__(self, per_s: float) -> None:
        """Start with a second's worth."""
        self._per_s = self._left = per_s
        self._at = time.monotonic()

    def take(self) -> bool:
        """Take one, if there is one."""
        now = time.monotonic()
        self._left, self._at = min(self._left + (now - self._at) * self._per_s, self._per_s), now
        taken = self._left >= 1
        self._left -= taken
        return taken


class _Sampler(Sampler):
    """As the environment says; if it says nothing, batches are thinned out. Rebalances and failures always pass."""

    def __init__(self, rest: Sampler, allowance: Allowance | None) -> None:
        self._rest = rest
        self._allowance = allowance

    def should_sample(
        self, parent_context: Context | None, trace_id: int, name: str, *args: Any, **kwargs: Any
    ) -> SamplingResult:
        given = kwargs.get("attributes") or (args[1] if len(args) > 1 else None) or {}
        sampler = self._rest
        if given.get(COORDINATION) or given.get("error.type"):
            sampler = ALWAYS_ON
        elif self._allowance and given.get("messaging.operation.name") and not self._allowance.take():
            sampler = ALWAYS_OFF
        return sampler.should_sample(parent_context, trace_id, name, *args, **kwargs)

    def get_description(self) -> str:
        return f"reactive_orch{{{self._rest.get_description()}}}"


class _Queues(SpanProcessor):
    """One queue for coordination, sent at once; one for the rest, as the environment says."""

    def __init__(self, route: Route) -> None:
        outage = Outage("traces")
        mine, others = (_watched(_span_exporter(route), outage) for _ in range(2))
        self._coordination = BatchSpanProcessor(mine, schedule_delay_millis=COORDINATION_DELAY_MS)
        self._rest = BatchSpanProcessor(others)

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


def _watched(exporter: _Exporter, outage: Outage) -> _Exporter:
    """Return the exporter, of spans or of metrics, with an `export` that tells the outage."""
    export: Any = exporter.export

    def attempt(*args: Any, **kwargs: Any) -> Any:
        return outage.attempt(partial(export, *args, **kwargs))

    exporter.export = attempt  # type: ignore[method-assign]
    return exporter


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
