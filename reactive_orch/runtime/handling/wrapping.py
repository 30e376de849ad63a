"""Putting middleware around a handler."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from reactive_orch.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Coroutine, Sequence

    from reactive_orch.model import Handler, Middleware


class NotEnded(Exception):
    """What a middleware is around was begun, and is not over."""

    def __init__(self) -> None:
        super().__init__("a middleware went on before the handler that it called had ended: await it")


def wrapped(handler: Handler, middleware: Sequence[Middleware]) -> Handler:
    """Return a handler with these around it, the first outermost; without any it is the handler itself.

    How the last call of the handler has ended counts, whatever they make of it: what it raised is raised again where
    it was swallowed, a cancellation too. Raises ConfigError for a middleware that returns no handler.
    """
    if not middleware:
        return handler
    ended: list[BaseException] = []
    """What the last call has not ended well with; empty if it has, or was not made."""

    async def called(events: Any, tx: Any) -> None:
        try:
            await handler(events, tx)
        except BaseException as error:
            ended[:] = [error]
            raise
        ended.clear()

    def innermost(events: Any, tx: Any) -> Coroutine[Any, Any, None]:
        ended[:] = [NotEnded()]  # here, where it is called: `await` may be missing, or a task not have begun
        return called(events, tx)

    outermost: Handler = innermost
    for each in reversed(middleware):
        outermost = _demand_handler(each, each(outermost))

    async def outer(events: Any, tx: Any) -> None:
        ended.clear()
        await outermost(events, tx)
        if ended:
            raise ended.pop()

    return outer


def _demand_handler(middleware: Middleware, returned: Any) -> Handler:
    if not callable(returned):
        name = getattr(middleware, "__qualname__", middleware)
        msg = f"middleware {name} must return an async function to call in the handler's place, not {returned!r}"
        raise ConfigError(msg)
    return returned  # type: ignore[no-any-return]  # what it returns when it is called is known then
