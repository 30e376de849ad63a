"""Pauses of those who have lost the database and try again: over at once when somebody has it back.

Many tasks of a process need it, and each tries again by itself, ever less often. One of them, that of the membership
connection, tries often. When that has succeeded the others need not sit out their pauses.
"""

from __future__ import annotations

import time

import anyio

JUST_BACK_S = 5.0
"""For so long after that an attempt may still fail that began before it."""
SOON_S = 0.25
"""After which it is made again."""


class Absence:
    """That of one process's database."""

    def __init__(self) -> None:
        """Begin with a database that is there."""
        self._back = anyio.Event()
        self._back_at = -JUST_BACK_S

    def over(self) -> None:
        """Say that the database is back."""
        back, self._back, self._back_at = self._back, anyio.Event(), time.monotonic()
        back.set()

    async def pause(self, seconds: float) -> None:
        """Wait before the next attempt: so long, or until the database is back."""
        just_back = time.monotonic() - self._back_at < JUST_BACK_S
        with anyio.move_on_after(min(seconds, SOON_S) if just_back else seconds):
            await self._back.wait()
