"""The tracer, if there is one: nothing happens, and nothing is imported, unless OpenTelemetry is in use.

It is in use when the application, or `exporting` because the environment asks for it, has imported it and set a tracer
provider. A context is passed around as a W3C traceparent, since that is how it lies in the generation's row. Most spans
are sent when everything about them is known, with their start and end given, and a parent before its children: so a
process that is killed leaves no span whose parent is missing.

Exceptions are never recorded: their texts hold values. `error.type` names them.
"""

from __future__ import annotations

import contextlib
import sys
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from reactive_orch.model.traces import TRACEPARENT
from reactive_orch.telemetry.metric_names import SCOPE

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from contextlib import AbstractContextManager

    from opentelemetry.context import Context
    from opentelemetry.trace import Link, Span, SpanContext, Tracer

    from reactive_orch.telemetry.span_names import SpanKind

FLUSH_TIMEOUT_MS = 2000

_NOTHING = contextlib.nullcontext()
_known: list[Tracer] = []
_flushing: list[threading.Thread] = []


def get() -> Tracer | None:
    """Return the tracer, None while nobody has set up OpenTelemetry."""
    if _known:
        return _known[0]
    if "opentelemetry.trace" not in sys.modules:
        return None
    from opentelemetry import trace

    if isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
        return None
    _known.append(trace.get_tracer(SCOPE))
    return _known[0]


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep an instrumented database driver from making spans of its own, here and in tasks started here.

    Heartbeats, looks and reads are metrics. The context of a batch ends this: what handlers do is seen.
    """
    if "opentelemetry.trace" not in sys.modules:
        yield
        return
    from opentelemetry import context

    token = context.attach(context.set_value(context._SUPPRESS_INSTRUMENTATION_KEY, value=True))  # noqa: SLF001
    try:
        yield
    finally:
        context.detach(token)


def nobodys_context() -> AbstractContextManager[None]:
    """Return a context without the span, baggage and settings of whoever started this task."""
    return _empty_context() if "opentelemetry.context" in sys.modules else _NOTHING


@contextlib.contextmanager
def _empty_context() -> Iterator[None]:
    from opentelemetry import context

    token = context.attach(context.Context())
    try:
        yield
    finally:
        context.detach(token)


def is_traceparent(text: str) -> bool:
    """Tell whether this has the form of a W3C traceparent."""
    return TRACEPARENT.fullmatch(text) is not None


def span_context(traceparent: str | None) -> SpanContext | None:
    """Return a traceparent as OpenTelemetry has it; None when it is malformed or all zeros."""
    match = TRACEPARENT.fullmatch(traceparent or "")
    if match is None:
        return None
    from opentelemetry.trace import SpanContext, TraceFlags

    context = SpanContext(
        int(match[1], 16), int(match[2], 16), is_remote=True, trace_flags=TraceFlags(int(match[3], 16))
    )
    return context if context.is_valid else None


def context_of(traceparent: str | None) -> Context:
    """Return the context of a child of this span, of a new root when there is none."""
    from opentelemetry.context import Context
    from opentelemetry.trace import NonRecordingSpan, set_span_in_context

    parent = span_context(traceparent)
    return Context() if parent is None else set_span_in_context(NonRecordingSpan(parent), Context())


def traceparent_of(span: Span) -> str | None:
    """Return a span's traceparent; None when nobody has set up tracing."""
    context = span.get_span_context()
    if not context.is_valid:
        return None
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{int(context.trace_flags):02x}"


def current_traceparent() -> str | None:
    """Return the W3C traceparent of the caller's span, None when there is none."""
    if "opentelemetry.trace" not in sys.modules:
        return None
    from opentelemetry.trace import get_current_span

    return traceparent_of(get_current_span())


@dataclass(frozen=True, slots=True, kw_only=True)
class SpanData:
    """A span, in the words of the tables."""

    kind: SpanKind
    name: str
    start_ns: int
    end_ns: int = 0
    attributes: Mapping[str, Any]
    """Those that are None are left out."""
    parent: str | None = None
    """A traceparent; None for a root."""
    links: Iterable[tuple[str | None, str]] = ()
    """Traceparents, each with the type of its link."""


def start(data: SpanData) -> Span | None:
    """Begin a span. One that is never ended is never sent."""
    found = get()
    if found is None:
        return None
    from opentelemetry import trace

    return found.start_span(
        data.name,
        context_of(data.parent),
        trace.SpanKind[data.kind.kind],
        {key: value for key, value in data.attributes.items() if value is not None},
        [link for traceparent, what in data.links if (link := _link(traceparent, what))],
        data.start_ns,
        record_exception=False,
        set_status_on_exception=False,
    )


def _link(traceparent: str | None, what: str) -> Link | None:
    from opentelemetry.trace import Link

    context = span_context(traceparent)
    return Link(context, {"reactive_orch.link.type": what}) if context else None


def send(data: SpanData) -> str | None:
    """Send a span that is over; return its traceparent for its children."""
    span = start(data)
    if span is None:
        return None
    if data.attributes.get("error.type"):
        fail(span, data.attributes["error.type"])
    span.end(max(data.start_ns, data.end_ns))
    return traceparent_of(span)


def fail(span: Span, error_type: str) -> None:
    """Mark a span as failed, without the words of the error."""
    from opentelemetry.trace import StatusCode

    span.set_attribute("error.type", error_type)
    span.set_status(StatusCode.ERROR)


def flush() -> None:
    """Send what is waiting, in a thread that nobody waits for; not while the one before still runs."""
    if not _known or (_flushing and _flushing[0].is_alive()):
        return
    from opentelemetry import trace

    force_flush = getattr(trace.get_tracer_provider(), "force_flush", None)
    if force_flush is not None:
        _flushing[:] = [threading.Thread(target=force_flush, args=(FLUSH_TIMEOUT_MS,), daemon=True)]
        _flushing[0].start()
