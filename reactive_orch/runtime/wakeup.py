"""A wake-up: set by anybody, waited for by one, carrying no facts."""

from __future__ import annotations

import anyio

WORK = "work"
"""The worker itself set the flag, as it does whenever what it holds has changed."""


class Wakeup:
    """A flag that stays up until its one waiter has seen it, however often it was set."""

    def __init__(self) -> None:
        """Start with the flag down."""
        self._event = anyio.Event()
        self._first = WORK
        self.source = "start"
        """What ended the last wait: whoever set the flag first, or `timer`. WORK only if nobody else has set it."""

    def set(self, source: str = WORK) -> None:
        """Wake the waiter, now or at its next wait."""
        if not self._event.is_set() or self._first == WORK:
            self._first = source
        self._event.set()

    @property
    def is_set(self) -> bool:
        """Whether the flag is up."""
        return self._event.is_set()

    async def wait(self, timeout_s: float | None = None) -> bool:
        """Wait for the flag and take it down; False when the time ran out first."""
        if not self._event.is_set():
            with anyio.move_on_after(timeout_s):
                await self._event.wait()
        woken = self._event.is_set()
        self.source = self._first if woken else "timer"
        self._event = anyio.Event()
        return woken
