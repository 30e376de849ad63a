"""The tables of metrics and spans for people: `python -m reactive_orch.telemetry.table > otel/METRICS.md`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reactive_orch.telemetry.metric_names import METRICS, Metric
from reactive_orch.telemetry.span_names import ATTRIBUTES, SPANS, SpanKind

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


def markdown() -> Iterator[str]:
    """Yield the lines of `otel/METRICS.md`."""
    yield from (
        "# Metrics and spans",
        "",
        "Made from the tables in `reactive_orch/telemetry/` by `python -m reactive_orch.telemetry.table`; do not edit.",
        "",
        "## Metrics",
        "",
        "In Prometheus, dots in attributes are underscores; histograms have `_bucket`, `_sum` and `_count`. Asked for",
        "OpenMetrics, `/metrics` names with them the trace of the last batch, adoption or rebalance in each bucket.",
        "",
        *_table("metric", "Prometheus", "instrument", "unit", "attributes", "values of the last", "meaning"),
        *map(_metric, METRICS),
        "",
        "## Spans",
        "",
        *_table("span", "kind", "parent", "meaning", "attributes", "links"),
        *map(_span, SPANS),
        "",
        "## Attributes of spans",
        "",
        "Its resource tells which process a span comes from (Jaeger: *Process*): `host.name` and `process.pid`, with",
        "which the worker's name in `status` begins, and `service.instance.id`, as in its log lines.",
        "",
        *_table("attribute", "meaning"),
        *(_row((f"`{name}`", meaning)) for name, meaning in ATTRIBUTES.items()),
    )


def _table(*columns: str) -> tuple[str, str]:
    return _row(columns), "|---" * len(columns) + "|"


def _row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _metric(metric: Metric) -> str:
    constants = (f"{key}={value}" for key, value in metric.constants.items())
    names = (f"`{metric.name}`", f"`{metric.prometheus}`", metric.kind.value, metric.unit)
    known = "; ".join(" ".join(values) for values in metric.known)
    return _row((*names, _quoted((*metric.attributes, *constants)), known, metric.meaning))


def _span(span: SpanKind) -> str:
    return _row((f"`{span.name}`", span.kind, span.parent, span.meaning, _quoted(span.attributes), span.links))


def _quoted(keys: Iterable[str]) -> str:
    return ", ".join(f"`{key}`" for key in keys)


if __name__ == "__main__":
    for line in markdown():
        print(line)  # noqa: T201 - that is its work
