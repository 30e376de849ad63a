"""Whether, and how, this process exports: the standard OTEL_* variables decide, by default nothing is exported.

    OTEL_EXPORTER_OTLP_ENDPOINT, or that of one signal     export there
    OTEL_TRACES_EXPORTER, OTEL_METRICS_EXPORTER            otlp, console or none
    OTEL_EXPORTER_OTLP_PROTOCOL, or that of one signal     http/protobuf (default) or grpc
    OTEL_TRACES_SAMPLER                                    which batches; unset: up to 20 a second
    OTEL_SDK_DISABLED=true                                 nothing

All other OTEL_* variables are read by the SDK itself.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from reactive_orch.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

PROTOCOLS = ("http/protobuf", "grpc")


@dataclass(frozen=True, slots=True)
class Route:
    """How one signal leaves: `exporter` is otlp, console or none."""

    exporter: str = "none"
    protocol: str = PROTOCOLS[0]
    sampled: bool = False
    """OTEL_TRACES_SAMPLER says which spans; otherwise batches are thinned out when there are many."""


def route(environment: Mapping[str, str], signal: str) -> Route:
    """Return how `TRACES` or `METRICS` leave. Raises ConfigError for what is not known."""
    if environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return Route()
    endpoints = ("OTEL_EXPORTER_OTLP_ENDPOINT", f"OTEL_EXPORTER_OTLP_{signal}_ENDPOINT")
    default = "otlp" if any(environment.get(name) for name in endpoints) else "none"
    exporter = environment.get(f"OTEL_{signal}_EXPORTER", "").strip() or default
    protocols = (f"OTEL_EXPORTER_OTLP_{signal}_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
    protocol = next((environment[name] for name in protocols if environment.get(name)), PROTOCOLS[0])
    if exporter == "prometheus":
        exporter = "none"  # /metrics is served anyway
    _check(f"OTEL_{signal}_EXPORTER", exporter, ("otlp", "console", "none"))
    _check(protocols[1], protocol, PROTOCOLS)
    return Route(exporter, protocol, bool(environment.get("OTEL_TRACES_SAMPLER")))


def _check(variable: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        msg = f"{variable} must be {', '.join(known[:-1])} or {known[-1]}, not {value!r}"
        raise ConfigError(msg)


@contextlib.contextmanager
def exporting(environment: Mapping[str, str]) -> Iterator[None]:
    """Export while the block runs, if the environment asks for it; what is left at its end is sent for a second.

    An application that has set up providers of its own keeps them. Raises ConfigError for what is not known, or not
    installed.
    """
    traces, metrics = route(environment, "TRACES"), route(environment, "METRICS")
    if traces.exporter == metrics.exporter == "none":
        yield
        return
    try:
        from reactive_orch.telemetry import sdk

        providers = sdk.set_up(traces, metrics)
    except ImportError as error:
        msg = f"exporting by OTLP needs more packages: pip install 'reactive_orch[otlp]' ({error.name} is missing)"
        raise ConfigError(msg) from error
    try:
        yield
    finally:
        sdk.shut_down(providers)
