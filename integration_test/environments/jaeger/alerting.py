"""The alerts of `otel/`, with minutes made seconds, and a scene in which workers give cause for them."""

from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING, Any, Self, TypeVar

import yaml

from integration_test.environments.jaeger.asking import drawn, get
from integration_test.environments.jaeger.stack import OTEL, Addresses, Prometheus
from integration_test.harness.connections import prepared
from integration_test.harness.processes import WorkerProcess
from integration_test.harness.waiting import wait_until

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    from integration_test.harness.connections import Connection

T = TypeVar("T")

FASTER = 30
"""All times of the rules are divided by this, but for those that they compare with: a worker's seconds stay seconds."""
SCRAPED = {"scrape_interval": "500ms", "scrape_timeout": "500ms", "evaluation_interval": "500ms"}
"""Less often than that would be for the rules' shortest ranges, more often for a small machine."""

_SECONDS = {"s": 1, "m": 60, "h": 3600}
_TIME = re.compile(r"(?<=\[)\d+[smh](?=\])|(?<=offset )\d+[smh]|(?<=for: )\d+[smh]")

RULES = OTEL / "alerts.yml"
ALERTS = [
    rule["alert"] for group in yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"] for rule in group["rules"]
]


def quickened(rules: str) -> str:
    """Return the rules with shorter times."""
    return _TIME.sub(lambda time: f"{int(time[0][:-1]) * _SECONDS[time[0][-1]] * 1000 // FASTER}ms", rules)


class Scene:
    """A database, a Prometheus and the workers that it scrapes. An async context manager."""

    def __init__(self, url: str) -> None:
        """Prepare; entering starts Prometheus."""
        self.url = url
        self.workers: list[WorkerProcess] = []
        self._prometheus = Prometheus(Addresses(), quickened(RULES.read_text(encoding="utf-8")), SCRAPED)
        self._exit = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Self:
        async with contextlib.AsyncExitStack() as stack:
            self.connection: Connection = await stack.enter_async_context(prepared(self.url))
            await stack.enter_async_context(self._prometheus)
            self._exit = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._exit.aclose()

    async def keep(self, what: AbstractAsyncContextManager[T]) -> T:
        """Let something last until the end of the scene."""
        return await self._exit.enter_async_context(what)

    async def worker(self, *projections: str, options: str = "", **more: Any) -> WorkerProcess:
        """Start a worker, and wait until it has been scraped."""
        quick = ("--heartbeat", "0.3", "--stale-after", "2", *options.split())
        more = {"database_url": self.url, "module": "reactive_orch"} | more
        worker = WorkerProcess(name=f"w{len(self.workers)}", projections=projections, options=quick, **more)
        await self.keep(worker)
        await worker.said("health http")
        self.workers.append(worker)
        self._prometheus.scrapes(self.workers)
        await wait_until(self._all_scraped, what="all are scraped")
        return worker

    async def _all_scraped(self) -> bool:
        running = sum(worker.running for worker in self.workers)
        return len(await self.values('up{job="reactive_orch"} == 1')) >= running

    async def values(self, query: str) -> list[float]:
        """Return what a query has now."""
        found = await get(f"{self._prometheus.url}/api/v1/query", query=query)
        return [float(each["value"][1]) for each in found["data"]["result"]]

    async def draws(self, query: str) -> bool:
        """Return whether a panel with this query has something to show."""
        return bool(await drawn(self._prometheus.url, query))

    async def fires(self, alert: str, timeout_s: float = 90) -> dict[str, str]:
        """Wait until the alert fires, and return its annotations."""

        async def firing() -> dict[str, str] | None:
            found = (await get(f"{self._prometheus.url}/api/v1/alerts"))["data"]["alerts"]
            fire = (each for each in found if (each["labels"]["alertname"], each["state"]) == (alert, "firing"))
            return next((each["annotations"] for each in fire), None)

        return await wait_until(firing, timeout_s, f"{alert} fires")
