"""What handlers do to the task that calls them: scopes they leave open, cancellations that are theirs."""

from __future__ import annotations

import asyncio
import contextlib
import math
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import anyio
from anyio._backends import _asyncio as _backend

from reactive_orch.errors import ConfigError, ReactiveOrchError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from anyio.abc import TaskGroup


ALL_CANCELLED = "something has cancelled tasks that are not its own: does a handler cancel all tasks?"


def demand_asyncio() -> None:
    """Raise ConfigError where another library than asyncio runs this coroutine: asyncpg knows none."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        msg = "reactive_orch runs on asyncio, or on uvloop, and not on trio: start it by asyncio.run or anyio.run"
        raise ConfigError(msg) from None


def innermost(task: asyncio.Task[Any], scope: anyio.CancelScope) -> Any:
    """Return an object whose `cancel_scope` is the task's innermost scope at any time; `scope` is that one now.

    anyio has no public way to ask for it. Should it come to keep it elsewhere, `cancel_scope` stays `scope`: then a
    scope that is left open fails where `scope` ends.
    """
    return getattr(_backend, "_task_states", {}).get(task) or SimpleNamespace(cancel_scope=scope)


def leave_inner(kept: Any, scope: anyio.CancelScope) -> bool:
    """Leave the scopes of the running task that were entered in `scope` and are open; tell whether there are any.

    What was started in them is cancelled.
    """
    found = False
    while (inner := kept.cancel_scope) is not scope and inner is not None:
        found = True
        inner.cancel()
        inner.__exit__(None, None, None)
    return found


def from_outside(error: BaseException) -> bool:
    """Tell whether an error is the end of a scope around this code, rather than a cancellation of the task alone."""
    return isinstance(error, asyncio.CancelledError) and anyio.current_effective_deadline() == -math.inf


def take_back(task: asyncio.Task[Any], cancels: int = 0) -> None:
    """Take back what cancelled a task without its scopes, until only `cancels` cancellations are left."""
    while task.cancelling() > cancels:
        task.uncancel()


def outlive(error: asyncio.CancelledError) -> None:
    """Take back a cancellation of the running task alone, as by a time-out that a handler has left open.

    Raises any other cancellation again. Left alone, a task group would take either for a quiet end.
    """
    task = asyncio.current_task()
    if task is None or from_outside(error):
        raise error
    take_back(task)


@contextlib.asynccontextmanager
async def lasting_group() -> AsyncIterator[TaskGroup]:
    """Open a task group that does not end quietly because something cancels one of its tasks alone, as anyio's do.

    Raises ReactiveOrchError then; nobody would go on with the work, and nobody would know.
    """
    complete = False
    async with anyio.create_task_group() as tasks:
        yield tasks
        complete = True
    if not complete:
        raise ReactiveOrchError(ALL_CANCELLED)
