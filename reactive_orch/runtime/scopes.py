"""The cancel scopes of a task, as anyio keeps them. It has no public way to ask for the innermost one."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from anyio._backends import _asyncio as _backend

if TYPE_CHECKING:
    import asyncio

    import anyio


def innermost(task: asyncio.Task[Any], scope: anyio.CancelScope) -> Any:
    """Return what has the task's innermost scope as `cancel_scope`, at any time; `scope` is that one now.

    Should anyio come to keep it elsewhere, it stays `scope`: then a scope that is left open fails where `scope` ends.
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
