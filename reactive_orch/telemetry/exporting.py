"""Exporting for as long as a block runs, if the environment asks for it (`routes`)."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from reactive_orch.errors import ConfigError, described
from reactive_orch.telemetry.routes import Route, route

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping


@contextlib.contextmanager
def exporting(environment: Mapping[str, str]) -> Iterator[None]:
    """Export while the block runs, if the environment asks for it. Its end sends what is left, for a second at most.

    An application that has set up providers of its own keeps them. Raises ConfigError for a value of OTEL_* that is not
    known or that the SDK does not accept, and for packages that are not installed.
    """
    traces, metrics = route(environment, "TRACES"), route(environment, "METRICS")
    if traces.exporter == metrics.exporter == "none":
        yield
        return
    shut_down = _set_up(traces, metrics)
    try:
        yield
    finally:
        shut_down()


def _set_up(traces: Route, metrics: Route) -> Callable[[], None]:
    """Start to export; return what ends it."""
    try:
        from reactive_orch.telemetry import sdk

        return sdk.set_up(traces, metrics)
    except ImportError as error:
        msg = f"exporting by OTLP needs more packages: pip install 'reactive_orch[otlp]' ({error.name} is missing)"
        raise ConfigError(msg) from error
    except Exception as error:
        # The SDK raises whatever it likes for a variable that it does not accept.
        msg = f"OpenTelemetry does not accept an OTEL_* variable: {described(error)}"
        raise ConfigError(msg) from error
