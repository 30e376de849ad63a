"""Calling handlers: here and nowhere else (protocol 3.6).

    calling(events, tx)     how many events of the batch have been handled, from its first on: so many may be committed

It returns only if none of these calls failed, nothing was cancelled and the transaction is still open. Whatever else
happens is raised, and what is raised rolls the batch back. No other code leads to a commit.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Any, Never

import anyio
from anyio.lowlevel import checkpoint_if_cancelled

from reactive_orch.errors import HandlerFailed, TimedOut, described
from reactive_orch.runtime.cancellation import from_outside, innermost, leave_inner, take_back
from reactive_orch.runtime.handling.threads import InThreads

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from reactive_orch.model import Event, Projection
    from reactive_orch.postgres.connection import AnyConnection

BATCH_S = 1.0
"""Once its handlers have taken this long, a batch ends with the event in hand and commits what it has: slow handlers
hold neither locks nor a take-over for the sum of their calls. A thousand times what a commit costs."""

BATCH_SHARE = 0.1
"""Nor do they take more than this share of the time-out of one call."""

_LEFT_OPEN = "the handler left a cancel scope or a task group open"


class Calling:
    """The handler of one projection, as one lane calls it: one batch at a time."""

    def __init__(self, projection: Projection, timeout_s: float, around: Callable[[Any], Any] | None = None) -> None:
        """`timeout_s` is that of one call; `around` wraps a handler of single events."""
        handler: Any = InThreads(projection) if projection.blocking else projection.handler
        self._batch = projection.batch
        self._handler = around(handler) if around and not self._batch else handler
        self.timeout_s = timeout_s
        self._set_by = "--handler-timeout" if projection.timeout is None else "timeout of its projection"
        self._batch_s = 0.0 if self._batch else min(BATCH_S, BATCH_SHARE * timeout_s)
        self._handled = 0

    async def __call__(self, events: Sequence[Event], tx: AnyConnection) -> int:
        """Return how many events have been handled, 1 or more, from the first on; all of them to a batch handler.

        Raises HandlerFailed whatever a handler did wrong: raised, cancelled itself, took too long, ended the
        transaction. What cancels it from outside passes through.
        """
        self._handled, task = 0, asyncio.current_task()
        assert task is not None, "this is a coroutine of a task"
        cancels = task.cancelling()
        # No call begins after the batch's time, so this one deadline leaves each call its own, and is never moved.
        scope = anyio.CancelScope(deadline=anyio.current_time() + self._batch_s + self.timeout_s)
        left_open, struck_at = False, None
        try:
            with scope:
                scopes = innermost(task, scope)
                try:
                    if self._batch:
                        await self._handler(events, tx)
                        self._handled = len(events)
                    else:
                        await self._each(events, tx, task, scopes)
                except asyncio.CancelledError as error:
                    struck_at = error.__traceback__
                    raise
                finally:
                    left_open = leave_inner(scopes, scope)
        except BaseException as error:  # noqa: BLE001 - of a handler each of them is a failure
            self._raise(error, events, scope, task, cancels)
        await checkpoint_if_cancelled()
        if scope.cancel_called:
            raise self._too_long(events) from TimeoutError().with_traceback(struck_at)
        wrong = _LEFT_OPEN if left_open else await _wrong(tx, task, cancels)
        if wrong:
            raise HandlerFailed(wrong, self._index(events))
        return self._handled

    async def _each(self, events: Sequence[Event], tx: AnyConnection, task: asyncio.Task[Any], scopes: Any) -> None:
        handler, in_transaction, cancelling = self._handler, tx.is_in_transaction, task.cancelling
        cancels, scope, ends = cancelling(), scopes.cancel_scope, time.monotonic() + self._batch_s
        for number, event in enumerate(events, 1):
            await handler(event, tx)
            if not in_transaction() or cancelling() != cancels or scopes.cancel_scope is not scope:
                return
            self._handled = number
            if time.monotonic() > ends:
                return

    def _raise(
        self,
        error: BaseException,
        events: Sequence[Event],
        scope: anyio.CancelScope,
        task: asyncio.Task[Any],
        cancels: int,
    ) -> Never:
        """Raise what a handler raised as its failure; what came from outside as it is."""
        if from_outside(error) or isinstance(error, KeyboardInterrupt) or _running_task() is not task:
            raise error
        take_back(task, cancels)
        if anyio.current_time() >= scope.deadline:
            raise self._too_long(events) from error
        raise HandlerFailed(described(error), self._index(events)) from error

    def _too_long(self, events: Sequence[Event]) -> TimedOut:
        msg = f"the handler took longer than {self.timeout_s:g} s ({self._set_by})"
        return TimedOut(msg, self._index(events))

    def _index(self, events: Sequence[Event]) -> int | None:
        return None if self._batch else min(self._handled, len(events) - 1)


async def _wrong(tx: AnyConnection, task: asyncio.Task[Any], cancels: int) -> str | None:
    """Return what is wrong although no call raised anything; None if the batch may be committed."""
    if task.cancelling() != cancels:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(0)  # where it strikes, if it has not yet
        take_back(task, cancels)
        return "the handler cancelled its own task"
    return None if tx.is_in_transaction() else "the handler ended the transaction it was given"


def _running_task() -> asyncio.Task[Any] | None:
    """Return None where no loop runs any more: a coroutine that nobody will go on with is closed there."""
    with contextlib.suppress(RuntimeError):
        return asyncio.current_task()
    return None
