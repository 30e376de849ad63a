"""The collector, Jaeger and Prometheus, run with the configurations of `otel/`: only addresses are others."""

from __future__ import annotations

import contextlib
import json
import shutil
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import aiohttp
import yaml

from integration_test.environments.binaries import JAEGER, OTELCOL
from integration_test.harness.cluster import free_port
from integration_test.harness.places import new_directory
from integration_test.harness.processes import ROOT, Process
from integration_test.harness.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from integration_test.harness.processes import WorkerProcess

OTEL = ROOT / "otel"
COLLECTOR_CONFIG, JAEGER_CONFIG = OTEL / "collector.yaml", OTEL / "jaeger.yaml"


@dataclass(frozen=True, slots=True)
class Addresses:
    """Free ports of loopback in place of the services of docker-compose.yml: all that is changed in `otel/`."""

    otlp_grpc: int = field(default_factory=free_port)
    otlp_http: int = field(default_factory=free_port)
    collector_health: int = field(default_factory=free_port)
    collector_own: int = field(default_factory=free_port)
    span_metrics: int = field(default_factory=free_port)
    jaeger_otlp: int = field(default_factory=free_port)
    jaeger_health: int = field(default_factory=free_port)
    jaeger_page: int = field(default_factory=free_port)
    jaeger_grpc: int = field(default_factory=free_port)
    prometheus: int = field(default_factory=free_port)

    def collector(self) -> Sequence[str]:
        """Return what the collector's configuration is overridden with."""
        own = f"[{{pull: {{exporter: {{prometheus: {{host: 127.0.0.1, port: {self.collector_own}}}}}}}}}]"
        return _overriding(
            {
                "receivers.otlp.protocols.grpc.endpoint": f"127.0.0.1:{self.otlp_grpc}",
                "receivers.otlp.protocols.http.endpoint": f"127.0.0.1:{self.otlp_http}",
                "exporters.otlp_grpc/jaeger.endpoint": f"127.0.0.1:{self.jaeger_otlp}",
                "exporters.prometheus.endpoint": f"127.0.0.1:{self.span_metrics}",
                "extensions.health_check.endpoint": f"127.0.0.1:{self.collector_health}",
                "service.telemetry.metrics.readers": own,
            }
        )

    def jaeger(self) -> Sequence[str]:
        """Return what Jaeger's configuration is overridden with."""
        backend = "extensions.jaeger_storage.metric_backends.span_metrics.prometheus"
        return _overriding(
            {
                "receivers.otlp.protocols.grpc.endpoint": f"127.0.0.1:{self.jaeger_otlp}",
                "extensions.healthcheckv2.http.endpoint": f"127.0.0.1:{self.jaeger_health}",
                "extensions.jaeger_query.http.endpoint": f"127.0.0.1:{self.jaeger_page}",
                "extensions.jaeger_query.grpc.endpoint": f"127.0.0.1:{self.jaeger_grpc}",
                f"{backend}.endpoint": f"http://127.0.0.1:{self.prometheus}",
                "service.telemetry.metrics.level": "none",  # its own, at a port that the machine may have in use
            }
        )

    def scraping(self, workers: Path, rules: Path) -> dict[str, Any]:
        """Return Prometheus' configuration, with workers from a file instead of the containers' DNS."""
        config: dict[str, Any] = yaml.safe_load((OTEL / "prometheus.yml").read_text(encoding="utf-8"))
        ours, collector = config["scrape_configs"]
        del ours["dns_sd_configs"]
        ours["file_sd_configs"] = [{"files": [str(workers)]}]
        ports = (self.collector_own, self.span_metrics)
        collector["static_configs"] = [{"targets": [f"127.0.0.1:{port}" for port in ports]}]
        return config | {"rule_files": [str(rules)]}


def _overriding(values: dict[str, str]) -> Sequence[str]:
    return [f"--set={key}={value}" for key, value in values.items()]


_NONE: Mapping[str, str] = {}


class Prometheus:
    """Prometheus with the targets and rules that it is given. An async context manager."""

    def __init__(self, addresses: Addresses, rules: str = "", settings: Mapping[str, str] = _NONE) -> None:
        """Prepare; entering starts it. `rules`, `settings`: of its own, in place of those of `otel/`."""
        self.url = f"http://127.0.0.1:{addresses.prometheus}"
        self._addresses, self._settings = addresses, settings
        self._rules = rules or (OTEL / "alerts.yml").read_text(encoding="utf-8")
        self._stack = contextlib.AsyncExitStack()

    def scrapes(self, workers: Iterable[WorkerProcess]) -> None:
        """Scrape these workers from now on."""
        urls = [worker.health_url for worker in workers]
        targets = [url.split("/")[2] for url in urls if url is not None]
        written = self._workers.with_suffix(".new")
        written.write_text(json.dumps([{"targets": targets}]))
        written.rename(self._workers)  # it never reads half a file

    async def __aenter__(self) -> Self:
        async with contextlib.AsyncExitStack() as stack:
            folder = new_directory("reactive_orch-prometheus-")
            stack.callback(shutil.rmtree, folder)
            await _start(stack, "prometheus", self._command(folder), f"{self.url}/-/ready")
            self._stack = stack.pop_all()
        return self

    def _command(self, folder: Path) -> Sequence[str]:
        self._workers = folder / "workers.json"
        self.scrapes([])
        file, rules = folder / "prometheus.yml", folder / "alerts.yml"
        config = self._addresses.scraping(self._workers, rules)
        config["global"] |= self._settings
        file.write_text(yaml.safe_dump(config))
        rules.write_text(self._rules)
        return [
            *("prometheus", f"--config.file={file}", f"--storage.tsdb.path={folder / 'data'}"),
            *("--enable-feature=exemplar-storage", f"--web.listen-address={self.url.removeprefix('http://')}"),
        ]

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()


class Stack:
    """All three. An async context manager."""

    def __init__(self) -> None:
        """Prepare; entering starts them."""
        self.addresses = Addresses()
        self.prometheus = Prometheus(self.addresses)
        self.jaeger_url = f"http://127.0.0.1:{self.addresses.jaeger_page}"
        self._stack = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Self:
        async with contextlib.AsyncExitStack() as stack:
            at, jaeger, collector = self.addresses, str(JAEGER.path), str(OTELCOL.path)
            command = [jaeger, f"--config={JAEGER_CONFIG}", *at.jaeger()]
            await _start(stack, "jaeger", command, f"http://127.0.0.1:{at.jaeger_health}/status")
            command = [collector, f"--config={COLLECTOR_CONFIG}", *at.collector()]
            await _start(stack, "collector", command, f"http://127.0.0.1:{at.collector_health}/")
            await stack.enter_async_context(self.prometheus)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    def environment(self, **more: str) -> dict[str, str]:
        """Return the variables of docker-compose.yml that make a worker export to the collector, and these."""
        return {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{self.addresses.otlp_http}",
            "OTEL_METRICS_EXPORTER": "none",
            **more,
        }


async def _start(stack: contextlib.AsyncExitStack, name: str, command: Sequence[str], url: str) -> None:
    process = await Process(name, command, {}).start()
    stack.push_async_callback(process.end)
    http = await stack.enter_async_context(aiohttp.ClientSession())

    async def answers() -> bool:
        assert process.running, f"{name} ended with exit code {process.code}:\n{process.tail()}"
        with contextlib.suppress(aiohttp.ClientError, TimeoutError):
            async with http.get(url) as response:
                return response.status == 200
        return False

    await wait_until(answers, what=f"{name} answers")
