"""The pages of health and metrics for an application of any ASGI framework, on its own server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

from reactive_orch.http.answers import Answer, answers_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping

    from reactive_orch.runtime.worker import Worker

    Message: TypeAlias = MutableMapping[str, Any]
    Receive: TypeAlias = Callable[[], Awaitable[Message]]
    Send: TypeAlias = Callable[[Message], Awaitable[None]]
    Asgi: TypeAlias = Callable[[Message, Receive, Send], Awaitable[None]]

_MISSING = Answer(404, "text/plain; charset=utf-8", b"no such page: /livez, /readyz, /healthz, /metrics\n")
_NOT_ALLOWED = Answer(405, "text/plain; charset=utf-8", b"pages are read, by GET or HEAD\n")


def health_app(*workers: Worker, metrics: bool = True) -> Asgi:
    """Return an ASGI application to mount; with Starlette and FastAPI by `app.mount("/internal", …)`.

    It has `/livez`, `/readyz`, `/healthz` and, with `metrics`, `/metrics`, that of all the process. The first three
    answer 200 if each of the workers passes, else 503; their JSON object has the `health` of all in a word, and under
    `workers` an object for each. Raises ConfigError without workers, and for what is none.
    """
    pages = answers_of(workers, taker="health_app", metrics=metrics)

    async def app(scope: Message, _receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1000, "reason": "pages of health are read by HTTP"})
            return
        if scope["type"] != "http":
            msg = f"pages of health are read by HTTP, not by {scope['type']}"
            raise RuntimeError(msg)
        ask = pages.get(scope["path"].removeprefix(scope.get("root_path", "").rstrip("/")))
        if scope["method"] not in {"GET", "HEAD"}:
            answer = _NOT_ALLOWED
        else:
            answer = _MISSING if ask is None else await ask(_accepted(scope))
        await _send(answer, send, whole=scope["method"] != "HEAD")

    return app


def _accepted(scope: Message) -> str:
    return ",".join(value.decode("latin-1") for name, value in scope["headers"] if name == b"accept")


async def _send(answer: Answer, send: Send, *, whole: bool) -> None:
    told = {b"content-type": answer.content_type.encode(), b"content-length": str(len(answer.body)).encode()}
    allowed = {b"allow": b"GET, HEAD"} if answer is _NOT_ALLOWED else {}
    headers = list((told | allowed).items())
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": answer.body if whole else b""})
