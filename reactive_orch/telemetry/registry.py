"""The metrics of this process, in memory. To count costs a few dictionary updates a batch, and waits for no reader.

`/metrics` shows them; when OpenTelemetry is in use, its instruments observe them (`bridge`). A process has one
registry, as it has one logging. Counting happens on the event loop; reading may happen in another thread, so readers
copy.
"""

from __future__ import annotations

import contextlib
import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

from reactive_orch.telemetry.metric_names import METRICS, Kind, Metric

Labels: TypeAlias = tuple[str, ...]
"""The values of a metric's attributes, in its order."""

Observe: TypeAlias = Callable[[], Iterable[tuple[Metric, float, Labels]]]
"""Returns the present values of gauges, from memory."""


class Exemplar(NamedTuple):
    """One measurement, and the span in which it was taken."""

    traceparent: str
    value: float
    at: float
    """Seconds since 1970."""


@dataclass(slots=True)
class Distribution:
    """One series of a histogram."""

    bounds: tuple[float, ...]
    counts: list[int]
    total: float = 0.0
    attributes: dict[str, str] = field(default_factory=dict)
    exemplars: dict[int, Exemplar] = field(default_factory=dict)
    """The last one of each bucket, by its number."""

    def record(self, value: float, traceparent: str | None) -> None:
        """Add a measurement."""
        bucket = bisect_left(self.bounds, value)
        self.counts[bucket] += 1
        self.total += value
        if traceparent is not None:
            self.exemplars[bucket] = Exemplar(traceparent, value, time.time())


class Registry:
    """Every metric of the table, with its series."""

    def __init__(self) -> None:
        """Start without series."""
        self.sums: dict[Metric, dict[Labels, float]] = {m: {} for m in METRICS if m.kind is Kind.COUNTER}
        self.distributions: dict[Metric, dict[Labels, Distribution]] = {
            m: {} for m in METRICS if m.kind is Kind.HISTOGRAM
        }
        self._observers: list[Observe] = []
        self._forward: dict[Metric, Any] = {}
        self._bridged = False

    def begin(self, *scope: str) -> None:
        """Show the counters of a scope from now on, at 0: who looks at increases would miss the first one of a series.

        A scope is the process (no argument), a replica set, or a replica set, a projection and its log: the first
        attributes of its metrics.
        """
        for metric in self.sums:
            if bool(scope) != metric.of_replica_set:
                continue
            for last in metric.known:
                if len(metric.attributes) == len(scope) + len(last):
                    self.count(metric, *scope, *last, amount=0)

    def count(self, metric: Metric, *labels: str, amount: float = 1) -> None:
        """Add to a counter; `labels` are the values of its attributes, in their order."""
        series = self.sums[metric]
        series[labels] = series.get(labels, 0) + amount

    def record(self, metric: Metric, value: float, *labels: str, traceparent: str | None = None) -> None:
        """Add a measurement to a histogram; `traceparent` is of the span that was sent of it, None without one."""
        one = self.distributions[metric].get(labels)
        if one is None:
            one = Distribution(metric.buckets, [0] * (len(metric.buckets) + 1), attributes=attributes(metric, labels))
            self.distributions[metric][labels] = one
        sampled = traceparent is not None and traceparent[-1] in "13579bdf"  # the lowest of its flags
        one.record(value, traceparent if sampled else None)
        if self._forward:
            self._forward[metric].record(value, one.attributes)

    @contextlib.contextmanager
    def observed(self, observe: Observe) -> Iterator[None]:
        """Ask this for gauges while the block runs."""
        self._observers.append(observe)
        try:
            yield
        finally:
            self._observers.remove(observe)

    def gauges(self) -> dict[Metric, dict[Labels, float]]:
        """Return the present values of all gauges."""
        found: dict[Metric, dict[Labels, float]] = {m: {} for m in METRICS if m.kind is Kind.GAUGE}
        for observe in tuple(self._observers):
            for metric, value, labels in observe():
                found[metric][labels] = value
        return found

    def bridge(self, meter: Any, *, histograms: bool) -> None:
        """Let an OpenTelemetry meter see everything from now on; the first call decides, later ones do nothing.

        Counters and gauges are observed when read. Histograms cannot be observed: with `histograms` each measurement
        is forwarded, which costs many times what it costs here. Whoever reads `distributions` says False.
        """
        if self._bridged:
            return
        self._bridged = True
        from opentelemetry.metrics import CallbackOptions, Observation

        def observing(metric: Metric) -> Callable[[CallbackOptions], Iterable[Observation]]:
            def observe(_: CallbackOptions) -> Iterable[Observation]:
                values = dict(self.sums[metric]) if metric.kind is Kind.COUNTER else self.gauges()[metric]
                return [Observation(value, attributes(metric, labels)) for labels, value in values.items()]

            return observe

        for metric in METRICS:
            described = {"name": metric.name, "unit": metric.unit, "description": metric.meaning}
            match metric.kind:
                case Kind.COUNTER:
                    meter.create_observable_counter(callbacks=[observing(metric)], **described)
                case Kind.GAUGE:
                    meter.create_observable_gauge(callbacks=[observing(metric)], **described)
                case Kind.HISTOGRAM if histograms:
                    advice = {"explicit_bucket_boundaries_advisory": metric.buckets}
                    self._forward[metric] = meter.create_histogram(**described, **advice)


def attributes(metric: Metric, labels: Labels) -> dict[str, str]:
    """Return a measurement's attributes; an empty value is left out, as with `error.type` of a success."""
    given = {key: value for key, value in zip(metric.attributes, labels, strict=True) if value}
    return {**metric.constants, **given}


REGISTRY = Registry()
