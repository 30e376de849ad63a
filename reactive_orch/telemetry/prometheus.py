"""`/metrics`: our counters in the words of the Prometheus client, as text or as OpenMetrics, whichever was asked for.

OpenMetrics has exemplars too: the trace of the last measurement that fell into a bucket while somebody traced.
"""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING

from reactive_orch.telemetry.metric_names import METRICS, Kind, Metric
from reactive_orch.telemetry.registry import Distribution, Labels, Registry, attributes

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from prometheus_client.core import Metric as Family
    from prometheus_client.samples import Exemplar


def load() -> None:
    """Load the client, which takes a tenth of a second: to be called in a thread, before the first page."""
    import prometheus_client.exposition  # noqa: F401


def page(registry: Registry, accept: str) -> tuple[bytes, str]:
    """Return the page and its content type for a request's Accept header; empty: the text format 0.0.4."""
    from prometheus_client.exposition import choose_encoder

    encode, content_type = choose_encoder(accept)
    return encode(_Collector(registry)), content_type


class _Collector:
    """The registry, as the client's encoders want it."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def collect(self) -> Iterator[Family]:
        from prometheus_client.core import Metric as Family

        gauges = self._registry.gauges()
        for metric in METRICS:
            name = metric.prometheus.removesuffix("_total") if metric.kind is Kind.COUNTER else metric.prometheus
            family = Family(name, metric.meaning, metric.kind.value)
            match metric.kind:
                case Kind.HISTOGRAM:
                    _add_histogram(family, metric, self._registry.distributions[metric])
                case Kind.COUNTER:
                    _add_values(family, metric, self._registry.sums[metric])
                case Kind.GAUGE:
                    _add_values(family, metric, gauges[metric])
            yield family


def _add_values(family: Family, metric: Metric, series: Mapping[Labels, float]) -> None:
    for labels, value in sorted(series.items()):
        family.add_sample(metric.prometheus, _named(attributes(metric, labels)), value)


def _add_histogram(family: Family, metric: Metric, series: Mapping[Labels, Distribution]) -> None:
    name = metric.prometheus
    for labels, one in sorted(series.items()):
        named, counts = _named(attributes(metric, labels)), list(accumulate(one.counts))
        for bucket, (bound, count) in enumerate(zip(_bounds(one.bounds), counts, strict=True)):
            exemplar = _exemplar(one, bucket)
            family.add_sample(f"{name}_bucket", {**named, "le": bound}, count, exemplar=exemplar)
        family.add_sample(f"{name}_sum", named, one.total)
        family.add_sample(f"{name}_count", named, counts[-1])


def _bounds(bounds: Iterable[float]) -> list[str]:
    return [*(str(float(bound)) for bound in bounds), "+Inf"]


def _exemplar(one: Distribution, bucket: int) -> Exemplar | None:
    if (found := one.exemplars.get(bucket)) is None:
        return None
    from prometheus_client.samples import Exemplar

    _, trace, span, _ = found.traceparent.split("-")
    return Exemplar({"trace_id": trace, "span_id": span}, found.value, found.at)


def _named(labels: Mapping[str, str]) -> dict[str, str]:
    return {key.replace(".", "_"): value for key, value in labels.items()}
