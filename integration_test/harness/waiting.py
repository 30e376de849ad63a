"""Waiting for facts: nothing here waits for time to pass, and every deadline is far away."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

TIMEOUT_S = 30.0
"""How long a test waits for what should happen at once: slow machines are no failures."""
POLL_S = 0.05

_T = TypeVar("_T")


class TimedOut(AssertionError):
    """What was waited for did not happen in time. That is no finding of what a planted bug does."""


async def wait_until(predicate: Callable[[], Awaitable[_T | None]], timeout_s: float = TIMEOUT_S, what: str = "") -> _T:
    """Return the predicate's first true value. Raises TimedOut with its last one at the deadline."""
    deadline = time.monotonic() + timeout_s
    while True:
        value = await predicate()
        if value:
            return value
        if time.monotonic() > deadline:
            msg = f"not within {timeout_s:g} s: {what or predicate} (last: {value!r})"
            raise TimedOut(msg)
        await asyncio.sleep(POLL_S)
