"""Calling handlers: here and nowhere else (protocol 3.6).

    calling(events, tx)     how many events of the batch have been handled, from its first on: so many may be committed

It returns only if none of these calls failed, nothing was cancelled and the transaction is still open. Whatever else
happens is raised, and what is raised rolls the batch back. No other code leads to a commit.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Any, NamedTuple, Never, Self, cast

import anyio
from anyio.lowlevel import checkpoint_if_cancelled

from reactive_orch.errors import HandlerFailed, TimedOut, described
from reactive_orch.model.middleware import ALONE
from reactive_orch.postgres.connection import itself
from reactive_orch.runtime.cancellation import from_outside, innermost, leave_inner, take_back
from reactive_orch.runtime.handling.threads import InThreads
from reactive_orch.runtime.handling.wrapping import wrapped

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from reactive_orch.model import Event, Projection
    from reactive_orch.model.middleware import Around
    from reactive_orch.postgres.connection import AnyConnection

BATCH_S = 1.0
"""Once its handlers have taken this long, a batch ends with the event in hand and commits what it has: slow handlers
hold neither locks nor a take-over for the sum of their calls. A thousand times what a commit costs."""

BATCH_SHARE = 0.1
"""Nor do they take more than this share of the time-out of one call."""

_LEFT_OPEN = "the handler left a cancel scope or a task group open"
_SWALLOWED = "the handler cancelled its own task or ended the transaction, and a middleware has hidden that"
_OTHER_EVENTS = "a middleware around batches hands on the very events that it got; one around handlers leaves some out"


class _Given(NamedTuple):
    """The batch in hand."""

    events: Sequence[Event]
    tx: AnyConnection
    scope: anyio.CancelScope


class Calling:
    """The handler of one projection, as one lane calls it: one batch at a time."""

    def __init__(
        self,
        projection: Projection,
        timeout_s: float,
        around: Callable[[Any], Any] | None = None,
        marking: Callable[[Any], Any] | None = None,
        own: Around = ALONE,
    ) -> None:
        """`timeout_s` is that of one call; `around` wraps a handler of single events.

        `marking` wraps it once more, for batches that are marked; `own` has the middleware. Raises ConfigError for one
        that returns no handler.
        """
        called: Any = InThreads(projection) if projection.blocking else projection.handler
        handler: Any = wrapped(called, own.middleware)
        self._batch = projection.batch
        self._handler = around(handler) if around and not self._batch else handler
        self._handlers = (self._handler, marking(self._handler) if marking and not self._batch else self._handler)
        self._surrounded = bool(own.batch_middleware)
        self._inside = True
        """Whether a call of the handler has been begun and has not ended well, as far as that is known."""
        calls: Any = handler if self._batch else self._in_order if self._surrounded else self._each
        self._call = wrapped(calls, own.batch_middleware)
        self.timeout_s = timeout_s
        self._set_by = "--handler-timeout" if projection.timeout is None else "timeout of its projection"
        self._batch_s = 0.0 if self._batch else min(BATCH_S, BATCH_SHARE * timeout_s)
        self._handled = 0
        self._given: _Given | None = None

    def marked(self, *, on: bool) -> Self:
        """Let the next batch be one that is marked, or not."""
        self._handler = self._handlers[on]
        return self

    async def __call__(self, events: Sequence[Event], tx: AnyConnection) -> int:
        """Return how many events have been handled, 1 or more, from the first on; all of them to a batch handler.

        All of them, too, where a middleware has passed over the whole batch.
        Raises HandlerFailed whatever a handler did wrong: raised, cancelled itself, took too long, ended the
        transaction. What cancels it from outside passes through.
        """
        self._handled, task = len(events) if self._surrounded else 0, asyncio.current_task()
        assert task is not None, "this is a coroutine of a task"
        cancels = task.cancelling()
        # No call begins after the batch's time, so this one deadline leaves each call its own, and is never moved.
        scope = anyio.CancelScope(deadline=anyio.current_time() + self._batch_s + self.timeout_s)
        self._given, self._inside, left_open, struck_at = _Given(events, tx, scope), not self._surrounded, False, None
        try:
            with scope:
                scopes = innermost(task, scope)
                try:
                    await self._call(events, tx)
                except asyncio.CancelledError as error:
                    struck_at = error.__traceback__
                    raise
                finally:
                    left_open = leave_inner(scopes, scope)
                    self._given = None  # else it would keep the events until the next batch
        except BaseException as error:  # noqa: BLE001 - of a handler each of them is a failure
            self._raise(error, events, scope, task, cancels)
        await checkpoint_if_cancelled()
        if scope.cancel_called:
            raise self._too_long(events) from TimeoutError().with_traceback(struck_at)
        wrong = _LEFT_OPEN if left_open else await _wrong(tx, task, cancels)
        if wrong or (self._inside and self._surrounded):
            raise HandlerFailed(wrong or _SWALLOWED, self._index(events))
        return len(events) if self._batch else self._handled

    async def _each(self, events: Sequence[Event], tx: Any) -> bool:
        """Call the handler event by event; return whether no call has left the task or the transaction otherwise."""
        task, given = asyncio.current_task(), self._given
        assert task is not None, "a middleware may have made it"
        assert given is not None, "a middleware has called it when its batch was over"
        scopes = innermost(task, given.scope)
        # Asked itself, as long as the pool lends it: its proxy takes ten times as long to answer, for each event.
        lent, own = given.tx, cast("AnyConnection", itself(given.tx))
        handler, in_transaction, cancelling = self._handler, own.is_in_transaction, task.cancelling
        cancels, scope, ends = cancelling(), scopes.cancel_scope, time.monotonic() + self._batch_s
        for number, event in enumerate(events, 1):
            await handler(event, tx)
            if itself(lent) is not own:
                lent.is_in_transaction()  # raises: the connection is lost
            if not in_transaction() or cancelling() != cancels or scopes.cancel_scope is not scope:
                return False
            self._handled = number
            if time.monotonic() > ends:
                return True
        return True

    async def _in_order(self, events: Sequence[Event], tx: Any) -> None:
        """Do the same inside of middleware: whatever that does, it is known afterwards whether a call went wrong."""
        if self._given is None or events is not self._given.events:
            raise TypeError(_OTHER_EVENTS)
        self._handled, self._inside = 0, True
        self._inside = not await self._each(events, tx)

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
        return None if self._batch or not self._inside else min(self._handled, len(events) - 1)


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
