"""Jaeger and Prometheus, asked as their pages ask them."""

from __future__ import annotations

import json
import math
import time
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import aiohttp

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

RO = "reactive_orch."


async def get(url: str, **parameters: Any) -> Any:
    """Return what a page's request is answered. Raises AssertionError if that is a refusal."""
    given = {key: str(value) for key, value in parameters.items()}
    async with aiohttp.ClientSession() as session, session.get(url, params=given) as response:
        text = await response.text()
        assert response.status == 200, f"{response.url}: {response.status} {text}"
        return json.loads(text)


LOOKS_BACK_S = 600


async def drawn(prometheus: str, query: str) -> list[float]:
    """Return all that a panel with this query has to draw of the last ten minutes; `prometheus`: its address."""
    now = time.time()
    when = {"start": now - LOOKS_BACK_S, "end": now, "step": 5}
    found = await get(f"{prometheus}/api/v1/query_range", query=query, **when)
    values = (float(value) for curve in found["data"]["result"] for _, value in curve["values"])
    return [value for value in values if math.isfinite(value)]


class Reference(NamedTuple):
    """A span that another names, as its parent or by a link."""

    kind: str
    trace: str
    span: str


@dataclass(frozen=True, slots=True)
class Span:
    """A span as Jaeger shows it."""

    id: str
    name: str
    service: str
    start_us: int
    duration_us: int
    tags: Mapping[str, Any]
    references: tuple[Reference, ...]
    events: tuple[Any, ...]
    warnings: tuple[str, ...]

    def get(self, key: str) -> Any:
        """Return one of this package's attributes."""
        return self.tags.get(RO + key)


@dataclass(frozen=True, slots=True)
class Trace:
    """A trace as Jaeger shows it."""

    id: str
    spans: tuple[Span, ...]
    warnings: tuple[str, ...]

    def parent(self, span: Span) -> str | None:
        """Return the id of a span's parent; None for a root."""
        return next((each.span for each in span.references if each[:2] == ("CHILD_OF", self.id)), None)

    @property
    def roots(self) -> tuple[Span, ...]:
        """Those that name no parent."""
        return tuple(span for span in self.spans if self.parent(span) is None)

    @property
    def orphans(self) -> tuple[Span, ...]:
        """Those whose parent is not in the trace."""
        known = {span.id for span in self.spans}
        return tuple(span for span in self.spans if self.parent(span) not in {None, *known})

    def below(self, span: Span) -> list[Span]:
        """Return the children of a span, the earliest first."""
        return sorted((each for each in self.spans if self.parent(each) == span.id), key=lambda each: each.start_us)

    def named(self, prefix: str) -> list[Span]:
        """Return the spans whose names begin so."""
        return [span for span in self.spans if span.name.startswith(prefix)]

    def __str__(self) -> str:
        """Draw it, as somebody who looks at it sees it."""
        began = min((span.start_us for span in self.spans), default=0)
        drawn = (line for top in (*self.roots, *self.orphans) for line in self._drawn(top, began, 1))
        return "\n".join([f"trace {self.id}", *(f"  ! {each}" for each in self.warnings), *drawn])

    def _drawn(self, span: Span, began_us: int, depth: int) -> Iterator[str]:
        indent, after_ms = "  " * depth, (span.start_us - began_us) / 1000
        yield f"{indent}{span.name}  +{after_ms:.1f} ms, {span.duration_us / 1000:.1f} ms  ({span.service})"
        told = [
            *(f"{key}={value}" for key, value in sorted(span.tags.items())),
            *(f"! {each}" for each in span.warnings),
        ]
        told += [f"{each.kind} {each.trace}:{each.span}" for each in span.references if each.trace != self.id]
        yield from (f"{indent}    {line}" for line in told)
        for child in self.below(span):
            yield from self._drawn(child, began_us, depth + 1)


class Jaeger:
    """The query API behind Jaeger's page."""

    def __init__(self, url: str) -> None:
        self._url = url

    async def services(self) -> list[str]:
        """Return the names of the list of services."""
        return sorted((await get(f"{self._url}/api/services"))["data"])

    async def operations(self, service: str) -> list[str]:
        """Return the names of the list of operations."""
        return sorted((await get(f"{self._url}/api/services/{service}/operations"))["data"])

    async def trace(self, trace_id: str) -> Trace:
        """Return what is shown of a trace id."""
        (found,) = (await get(f"{self._url}/api/traces/{trace_id}"))["data"]
        return _trace(found)

    async def search(self, service: str, operation: str = "", *, limit: int = 1000, **more: Any) -> list[Trace]:
        """Return the traces that a search finds; `tags` are values by name."""
        if "tags" in more:
            more["tags"] = json.dumps({key: str(value) for key, value in more["tags"].items()})
        if operation:
            more["operation"] = operation
        now_us = time.time_ns() // 1000
        when = {"start": now_us - 3_600_000_000, "end": now_us, "limit": limit}
        return [
            _trace(each) for each in (await get(f"{self._url}/api/traces", service=service, **when, **more))["data"]
        ]

    async def monitored(self, metric: str, service: str, **more: Any) -> dict[str, list[float]]:
        """Return operation → the values of a curve of the tab *Monitor*."""
        when = {"endTs": time.time_ns() // 1_000_000, "lookback": 600_000, "step": 5_000, "ratePer": 60_000}
        asked = {"service": service, "groupByOperation": "true", **when, **more}
        found = await get(f"{self._url}/api/metrics/{metric}", **asked)
        curves: dict[str, list[float]] = defaultdict(list)
        for curve in found["metrics"]:
            labels = {label["name"]: label["value"] for label in curve["labels"]}
            values = [point.get("gaugeValue", {}).get("doubleValue") for point in curve["metricPoints"]]
            curves[labels["operation"]] += [value for value in values if isinstance(value, float | int)]
        return dict(curves)


def _trace(found: Mapping[str, Any]) -> Trace:
    services = {key: process["serviceName"] for key, process in found["processes"].items()}
    return Trace(
        found["traceID"],
        tuple(_span(each, services[each["processID"]]) for each in found["spans"]),
        tuple(found["warnings"] or ()),
    )


def _span(found: Mapping[str, Any], service: str) -> Span:
    return Span(
        found["spanID"],
        found["operationName"],
        service,
        found["startTime"],
        found["duration"],
        {tag["key"]: tag["value"] for tag in found["tags"]},
        tuple(Reference(each["refType"], each["traceID"], each["spanID"]) for each in found["references"]),
        tuple(found["logs"]),
        tuple(found["warnings"] or ()),
    )
