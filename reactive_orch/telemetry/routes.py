"""By which way each signal leaves, as the standard OTEL_* variables say; by default none does.

    OTEL_EXPORTER_OTLP_ENDPOINT, or that of one signal     export there
    OTEL_TRACES_EXPORTER, OTEL_METRICS_EXPORTER            otlp, console or none
    OTEL_EXPORTER_OTLP_PROTOCOL, or that of one signal     http/protobuf (default) or grpc
    OTEL_TRACES_SAMPLER                                    which batches; unset: up to 20 a second; failed ones always
    OTEL_SDK_DISABLED=true                                 nothing

All other OTEL_* variables are read by the SDK itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from reactive_orch.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

PROTOCOLS = ("http/protobuf", "grpc")


@dataclass(frozen=True, slots=True)
class Route:
    """How one signal leaves: `exporter` is otlp, console or none."""

    exporter: str = "none"
    protocol: str = PROTOCOLS[0]
    sampled: bool = False
    """OTEL_TRACES_SAMPLER says which spans; otherwise batches are thinned out when there are many."""


def route(environment: Mapping[str, str], signal: str) -> Route:
    """Return how `TRACES` or `METRICS` leave. Raises ConfigError for a value that is not one of the known."""
    if environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return Route()
    endpoints = (f"OTEL_EXPORTER_OTLP_{signal}_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
    endpoint = next((name for name in endpoints if environment.get(name)), None)
    exporter = environment.get(f"OTEL_{signal}_EXPORTER", "").strip() or ("otlp" if endpoint else "none")
    protocols = (f"OTEL_EXPORTER_OTLP_{signal}_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
    protocol = next((environment[name] for name in protocols if environment.get(name)), PROTOCOLS[0])
    if exporter == "prometheus":
        exporter = "none"  # /metrics is served anyway
    _check(f"OTEL_{signal}_EXPORTER", exporter, ("otlp", "console", "none"))
    _check(protocols[1], protocol, PROTOCOLS)
    if exporter == "otlp" and protocol != "grpc" and endpoint:
        _check_url(endpoint, environment[endpoint])
    return Route(exporter, protocol, bool(environment.get("OTEL_TRACES_SAMPLER")))


def _check(variable: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        msg = f"{variable} must be {', '.join(known[:-1])} or {known[-1]}, not {value!r}"
        raise ConfigError(msg)


def _check_url(variable: str, value: str) -> None:
    if not value.startswith(("http://", "https://")):
        msg = f"{variable} must begin with http:// or https://"  # its value may hold a password
        raise ConfigError(msg)
