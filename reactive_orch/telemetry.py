"""Traces: the only importer of opentelemetry.

Nothing is imported before an application has done so itself: without telemetry nobody pays for it.
"""

from __future__ import annotations

import sys


def current_traceparent() -> str | None:
    """Return the W3C traceparent of the caller's span, None when there is none."""
    if "opentelemetry" not in sys.modules:
        return None
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    carrier: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(carrier)
    return carrier.get("traceparent")
