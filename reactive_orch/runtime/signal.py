"""A wake-up: set by anybody, waited for by one, carrying no facts."""

from __future__ import annotations

import anyio


class Signal:
    """A flag that stays up until its one waiter has seen it, however often it was set."""

    def __init__(self) -> None:
        """Start with the flag down."""
        self._event = anyio.Event()

    def set(self) -> None:
        """Wake the waiter, now or at its next wait."""
        self._event.set()

    async def wait(self, timeout_s: float | None = None) -> bool:
        """Wait for the flag and take it down; False when the time ran out first."""
        if not self._event.is_set():
            with anyio.move_on_after(timeout_s):
                await self._event.wait()
        woken = self._event.is_set()
        self._event = anyio.Event()
        return woken
