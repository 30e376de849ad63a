"""What the pages of health and metrics answer, from memory, whichever server they are on."""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import anyio

from reactive_orch.errors import ConfigError
from reactive_orch.http.health import health_of_all
from reactive_orch.runtime.worker import demand_workers
from reactive_orch.telemetry import prometheus
from reactive_orch.telemetry.registry import REGISTRY

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from reactive_orch.core.health import Health
    from reactive_orch.runtime.worker import Worker

    Ask: TypeAlias = Callable[[str], Awaitable["Answer"]]
    """Answers a request that accepts this, by its header; the empty text if it does not say."""
    Judge: TypeAlias = Callable[[], tuple[Health, Mapping[str, Any]]]
    """Returns the health, which says whether a page answers 200 or 503; and the JSON object that all three show."""
    Measure: TypeAlias = Callable[[str], tuple[bytes, str]]
    """Returns the page of metrics and its content type, for what a request accepts."""


class Answer(NamedTuple):
    """What a page answers."""

    status: int
    content_type: str
    body: bytes


def answers(health: Judge, metrics: Measure | None) -> Mapping[str, Ask]:
    """Return path → what answers there; without `metrics` there is no such page."""

    def page(passes: Callable[[Health], bool]) -> Ask:
        async def show(_accept: str) -> Answer:
            judged, body = health()
            text = json.dumps(body).encode()
            return Answer(200 if passes(judged) else 503, "application/json; charset=utf-8", text)

        return show

    found = {
        "/livez": page(lambda judged: judged.live),
        "/readyz": page(lambda judged: judged.ready),
        "/healthz": page(lambda judged: judged.well),
    }
    return found | ({} if metrics is None else {"/metrics": partial(_measured, metrics)})


async def _measured(metrics: Measure, accept: str) -> Answer:
    await anyio.to_thread.run_sync(prometheus.load)
    body, content_type = metrics(accept)
    return Answer(200, content_type, body)


def answers_of(workers: Sequence[Worker], *, taker: str, metrics: bool) -> Mapping[str, Ask]:
    """Return the same for these workers, and for all that this process has counted; `taker` was given them.

    Raises ConfigError without any, and for what is no worker.
    """
    if not workers:
        msg = "pages of health are of workers: name at least one"
        raise ConfigError(msg)
    demand_workers(taker, workers)
    return answers(lambda: health_of_all(workers), partial(prometheus.page, REGISTRY) if metrics else None)
