"""Reading windows for one lane, one ahead: while a batch is handled, the next window is read on another connection.

What is read ahead is a guess at the next window. It is used if the lane then asks for the same partitions from the same
position in the same incarnation of the database, and thrown away otherwise; which events of it count is decided by
the lane's progress, as for any window.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import anyio

from reactive_orch.errors import ReactiveOrchError
from reactive_orch.postgres import log

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from anyio.abc import TaskGroup

    from reactive_orch.model import Event, Filter, Position, Window
    from reactive_orch.postgres.database import Database


@dataclass(frozen=True, slots=True)
class Reading:
    """A window that has been read up to `end`."""

    window: Window
    events: Sequence[Event]
    end: Position
    incarnation: int


class Reader:
    """The windows of one lane."""

    def __init__(self, database: Database, wanted: Filter, took: Callable[[float], None]) -> None:
        """Read nothing yet; `took` is told how long each read took, in seconds."""
        self._database = database
        self._wanted = wanted
        self._took = took
        self._guess: Window | None = None
        self._ahead: Reading | None = None
        self._arrived = anyio.Event()

    def read_ahead(self, tasks: TaskGroup, window: Window) -> None:
        """Start to read what is likely to be asked for next."""
        self._guess, self._ahead, self._arrived = window, None, anyio.Event()
        tasks.start_soon(self._read_guess, window, self._arrived)

    async def read(self, window: Window) -> Reading:
        """Return this window, or its beginning if that was read ahead. Raises Unavailable or Superseded."""
        guess, self._guess = self._guess, None
        if guess is not None and _begins(guess, window):
            await self._arrived.wait()
            ahead, self._ahead = self._ahead, None
            if ahead is not None and ahead.incarnation == self._database.incarnation:
                return ahead
        return await self._read(window)

    async def _read(self, window: Window) -> Reading:
        incarnation = self._database.incarnation
        async with self._database.processing() as connection:
            began = time.perf_counter()
            events, end = await log.read_window(connection, window, self._wanted)
            self._took(time.perf_counter() - began)
        return Reading(window, events, end, incarnation)

    async def _read_guess(self, window: Window, arrived: anyio.Event) -> None:
        reading = None
        try:
            reading = await self._read(window)
        except ReactiveOrchError:
            pass  # the lane will read it itself, and meet the error itself
        finally:
            if arrived is self._arrived:
                self._ahead = reading
            arrived.set()


def _begins(guess: Window, window: Window) -> bool:
    return guess.low == window.low and guess.partitions == window.partitions and guess.limit <= window.limit
