"""Blocking handlers, called in threads: for whoever calls, they are async ones.

A thread cannot be ended. When a call has been cut off, its connection is closed to it, and it is left to end by itself:
the next call has another thread. Left-behind threads are daemons, so that no process waits for them at its end.
"""

from __future__ import annotations

import inspect
import sys
import threading
import weakref
from contextvars import copy_context
from queue import SimpleQueue
from types import TracebackType
from typing import TYPE_CHECKING, Any

from reactive_orch.errors import CallsHang
from reactive_orch.postgres.blocking import BlockingConnection

if TYPE_CHECKING:
    from collections.abc import Callable

    from reactive_orch.model import Projection
    from reactive_orch.postgres.connection import AnyConnection

LEFT_MOST = 4
"""So many threads may be left behind of a lane besides one; then its handler is not called before one of them has
ended."""


class InThreads:
    """The handler of a blocking projection as one lane calls it: one call at a time."""

    def __init__(self, projection: Projection) -> None:
        """Start no thread yet."""
        self._handler: Any = projection.handler
        self._name = projection.name
        self._threads: list[_Thread] = []

    async def __call__(self, events: Any, tx: AnyConnection) -> None:
        """Call the handler in a thread, in the context of this task. Raises what it raises; CallsHang."""
        lent, context, thread = BlockingConnection(tx), copy_context(), self._free()

        def call() -> None:
            error = None
            try:
                context.run(_called, self._handler, events, lent)
            except BaseException as raised:  # noqa: BLE001 - of a handler each of them is a failure
                error = raised
            thread.is_free = True
            lent.end(error)

        thread.do(call)
        try:
            await lent.serve()
        except BaseException as error:
            if thread.is_free:
                raise
            raise error.with_traceback(thread.stack())  # noqa: B904 - the same error, from where the thread is

    def _free(self) -> _Thread:
        found = next((thread for thread in self._threads if thread.is_free), None)
        if found is None:
            if len(self._threads) > LEFT_MOST:
                raise CallsHang(len(self._threads))
            found = _Thread(f"reactive_orch {self._name}")
            self._threads.append(found)
        return found


def _called(handler: Callable[[Any, BlockingConnection], object], events: Any, tx: BlockingConnection) -> None:
    returned = handler(events, tx)
    if inspect.iscoroutine(returned):
        returned.close()
        msg = "the handler has returned a coroutine: of a handler that is async, leave out blocking=True"
        raise TypeError(msg)


class _Thread:
    """A thread that waits for its next call; it ends when nobody has this object any more."""

    def __init__(self, name: str) -> None:
        self.is_free = True
        self._calls: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread = threading.Thread(target=_work, args=[self._calls], name=name, daemon=True)
        self._thread.start()
        weakref.finalize(self, self._calls.put, None)

    def do(self, call: Callable[[], None]) -> None:
        self.is_free = False
        self._calls.put(call)

    def stack(self) -> TracebackType | None:
        """Return where it is now, as if an error had come from there."""
        frame, trace = sys._current_frames().get(self._thread.ident or 0), None  # noqa: SLF001 - no other way to ask
        while frame is not None:
            trace = TracebackType(trace, frame, frame.f_lasti, frame.f_lineno)
            frame = frame.f_back
        return trace


def _work(calls: SimpleQueue[Callable[[], None] | None]) -> None:
    while (call := calls.get()) is not None:
        call()
        del call  # it knows the thread, which could not end else
