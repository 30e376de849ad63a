"""What all contestants answer. Nothing but the standard library: each script runs in its own virtual environment.

Every event is numbered, so that its way can be followed: the number is in what is appended.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import time
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine
    from contextlib import AbstractAsyncContextManager

    Put = Callable[[int], Awaitable[object]]
    """Append or enqueue an event with this number, committed when it returns."""

EFFECT = "INSERT INTO public.effects (id, worker) VALUES ({}, {})"
PID = os.getpid()


class Script(ABC):
    """A contestant. `work` is asked of one process, the other questions of others."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.handled = 0
        self.called: dict[int, int] = {}
        self.ended: str | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @abstractmethod
    async def install(self) -> None:
        """Create the tables."""

    @abstractmethod
    async def fill(self, events: int) -> None:
        """Commit events 1 to `events` at once."""

    @abstractmethod
    async def work(self, mode: str) -> str:
        """Start a worker in the background; return the name that the database knows it by.

        mode: `noop`, or `clock` (when was the handler called?), or `insert` (one INSERT for each event).
        """

    @abstractmethod
    def writer(self) -> AbstractAsyncContextManager[Put]:
        """Connect for the block."""

    async def write(self, writers: int, seconds: float) -> float:
        """Append from so many connections for so long; return events per second."""
        async with contextlib.AsyncExitStack() as stack:
            puts = [await stack.enter_async_context(self.writer()) for _ in range(writers)]
            until = time.monotonic() + seconds
            counts = await asyncio.gather(*(_write_until(put, until) for put in puts))
        return sum(counts) / seconds

    async def trickle(self, events: int, per_s: float) -> dict[int, tuple[int, int]]:
        """Append at a steady rate; return number → when the call began and returned, by the system's monotonic clock."""
        sent = {}
        async with self.writer() as put:
            began = time.monotonic()
            for n in range(1, events + 1):
                await asyncio.sleep(began + n / per_s - time.monotonic())
                called = time.monotonic_ns()
                await put(n)
                sent[n] = called, time.monotonic_ns()
        return sent

    async def progress(self) -> dict[str, Any]:
        """Return how many events this process has handled, and the error that its worker ended with."""
        return {"handled": self.handled, "ended": self.ended}

    async def calls(self) -> dict[int, int]:
        """Return number → when the handler was called."""
        return self.called

    def saw(self) -> None:
        """Count an event."""
        self.handled += 1

    def note(self, n: int) -> None:
        """Note when an event's handler was called."""
        self.called[n] = time.monotonic_ns()
        self.handled += 1

    def background(self, work: Coroutine[Any, Any, object]) -> None:
        """Run beside the questions; keep how it ended."""
        self._tasks.add(asyncio.create_task(self._run(work)))

    async def _run(self, work: Coroutine[Any, Any, object]) -> None:
        try:
            await work
            self.ended = "returned"
        except Exception as error:  # noqa: BLE001 - whatever ends a worker is a finding
            self.ended = type(error).__name__
            print(f"worker ended: {error!r}", file=sys.stderr)


async def _write_until(put: Put, until: float) -> int:
    count = 0
    while time.monotonic() < until:
        count += 1
        await put(count)
    return count
