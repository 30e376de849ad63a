"""The pages of health and metrics for an application of aiohttp, on its own server."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web

from reactive_orch.http.answers import answers_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from reactive_orch.http.answers import Ask
    from reactive_orch.runtime.worker import Worker


def health_routes(*workers: Worker, metrics: bool = True) -> list[web.RouteDef]:
    """Return routes to add, as `app.add_routes(health_routes(*workers))` does; for a prefix, to a sub-application.

    They are those of `reactive_orch.http.asgi.health_app`. Raises ConfigError without workers, and for what is none.
    """
    return routes(answers_of(workers, taker="health_routes", metrics=metrics))


def routes(pages: Mapping[str, Ask]) -> list[web.RouteDef]:
    """Return a route for each path."""
    return [web.get(path, _handler(ask)) for path, ask in pages.items()]


def _handler(ask: Ask) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def handle(request: web.Request) -> web.Response:
        answer = await ask(request.headers.get("Accept", ""))
        return web.Response(status=answer.status, body=answer.body, headers={"Content-Type": answer.content_type})

    return handle
