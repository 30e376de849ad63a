"""Spans that were sent, without a receiver."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from reactive_orch.telemetry.spans import tracer

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def finished(monkeypatch: pytest.MonkeyPatch) -> Callable[[], tuple[Any, ...]]:
    """What spans have been sent."""
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(tracer, "_known", [provider.get_tracer("test")])
    monkeypatch.setattr(tracer, "flush", lambda: None)
    return exporter.get_finished_spans
