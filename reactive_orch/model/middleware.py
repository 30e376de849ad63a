"""Middleware: functions around handlers, and around batches. For users."""

from __future__ import annotations

import inspect
from collections.abc import Collection
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, NamedTuple

from reactive_orch.model.hooks import Hooks

if TYPE_CHECKING:
    from reactive_orch.model.handlers import Middleware
    from reactive_orch.model.reports import Subject

subject: ContextVar[Subject] = ContextVar("reactive_orch.subject")
"""What is being handled here, in handlers and in what is around them: `subject.get().projection`. Elsewhere
`subject.get()` raises LookupError, `subject.get(None)` is None."""


class Around(NamedTuple):
    """What stands around the handlers of a worker or of a projection, and who is told of their partitions."""

    middleware: tuple[Middleware, ...] = ()
    """Around each call of a handler, the outermost first."""
    batch_middleware: tuple[Middleware, ...] = ()
    """Around all calls of a batch, the outermost first."""
    hooks: tuple[Hooks, ...] = ()

    def outside(self, inner: Around) -> Around:
        """Return both, these outside."""
        return Around(
            self.middleware + inner.middleware,
            self.batch_middleware + inner.batch_middleware,
            self.hooks + inner.hooks,
        )


ALONE = Around()
"""Nothing stands around them."""


_TOLD = [name for name in vars(Hooks) if not name.startswith("_")]


def around(middleware: Any, batch_middleware: Any, hooks: Any) -> Around:
    """Return these as tuples; what is no list stays as it is, for `wrong_with`."""
    given: Any = (tuple(each) if _is_list(each) else each for each in (middleware, batch_middleware, hooks))
    return Around(*given)


def wrong_with(given: Around) -> list[str]:
    """Return what cannot be, in words; empty if all is well."""
    named = (("middleware", given.middleware), ("batch_middleware", given.batch_middleware))
    wrong = [text for option, listed in named for text in _wrong_middleware(option, listed)]
    if not (_is_list(given.hooks) and all(isinstance(each, Hooks) for each in given.hooks)):
        wrong.append(f"hooks must be a list of objects of classes that extend Hooks, not {given.hooks!r}")
        return wrong
    return wrong + [
        f"hooks: {type(each).__name__}.{told} is async; hooks are called at once, so write a plain `def`"
        for each in given.hooks
        for told in _TOLD
        if inspect.iscoroutinefunction(getattr(each, told))
    ]


def _wrong_middleware(option: str, listed: Any) -> list[str]:
    if not (_is_list(listed) and all(map(callable, listed))):
        return [f"{option} must be a list of functions that take a handler and return one, not {listed!r}"]
    return [
        f"{option}: {getattr(each, '__name__', each)} is async; write a plain `def` that gets a handler and returns an "
        "async function"
        for each in listed
        if inspect.iscoroutinefunction(each) or inspect.iscoroutinefunction(type(each).__call__)
    ]


def _is_list(given: object) -> bool:
    return isinstance(given, Collection) and not isinstance(given, str)
