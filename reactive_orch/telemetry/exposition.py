"""The metrics as Prometheus reads them: text format 0.0.4."""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING

from reactive_orch.telemetry.metric_names import METRICS, Kind, Metric
from reactive_orch.telemetry.metrics import Distribution, Registry, attributes

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def exposition(registry: Registry) -> str:
    """Return the page."""
    return "".join(f"{line}\n" for line in _lines(registry))


def _lines(registry: Registry) -> Iterator[str]:
    gauges = registry.gauges()
    for metric in METRICS:
        yield f"# HELP {metric.prometheus} {metric.meaning}"
        yield f"# TYPE {metric.prometheus} {metric.kind.value}"
        if metric.kind is Kind.HISTOGRAM:
            for labels, one in sorted(registry.distributions[metric].items()):
                yield from _histogram(metric, attributes(metric, labels), one)
            continue
        values = registry.sums[metric] if metric.kind is Kind.COUNTER else gauges[metric]
        for labels, value in sorted(values.items()):
            yield _sample(metric.prometheus, attributes(metric, labels), value)


def _histogram(metric: Metric, labels: Mapping[str, str], one: Distribution) -> Iterator[str]:
    name = metric.prometheus
    counts = list(accumulate(one.counts))
    for bound, count in zip((*map(_number, one.bounds), "+Inf"), counts, strict=True):
        yield _sample(f"{name}_bucket", {**labels, "le": bound}, count)
    yield _sample(f"{name}_sum", labels, one.total)
    yield _sample(f"{name}_count", labels, counts[-1])


def _sample(name: str, labels: Mapping[str, str], value: float) -> str:
    shown = ",".join(f'{key.replace(".", "_")}="{_escaped(text)}"' for key, text in labels.items())
    return f"{name}{{{shown}}} {_number(value)}" if shown else f"{name} {_number(value)}"


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _number(value: float) -> str:
    return repr(float(value)).removesuffix(".0")
