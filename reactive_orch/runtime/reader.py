"""Reading windows for one lane, one ahead: while a batch is handled, the next window is read on another connection.

What is read ahead is a guess at the next window. It is used if the lane then asks for the same partitions from the same
position in the same incarnation of the database, and thrown away otherwise; which events of it count is decided by
the lane's progress, as for any window.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
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


@dataclass(slots=True)
class _Guess:
    """A window read ahead, or being read."""

    window: Window
    under_way: bool = False
    """It has a connection: the database is at work on it, or has been."""
    reading: Reading | None = None
    arrived: anyio.Event = field(default_factory=anyio.Event)

    def begins(self, window: Window) -> bool:
        mine = self.window
        return mine.low == window.low and mine.partitions == window.partitions and mine.limit <= window.limit


class Reader:
    """The windows of one lane."""

    def __init__(self, database: Database, wanted: Filter, took: Callable[[float], None]) -> None:
        """Read nothing yet; `took` is told how long each read took, in seconds."""
        self._database = database
        self._wanted = wanted
        self._took = took
        self._guess: _Guess | None = None

    @property
    def coming(self) -> bool:
        """Whether a window with events was read ahead, or the database is at work on one: it will not be long."""
        guess = self._guess
        if guess is None or not guess.under_way:
            return False
        return bool(guess.reading.events) if guess.reading else not guess.arrived.is_set()

    def read_ahead(self, tasks: TaskGroup, window: Window) -> None:
        """Start to read what is likely to be asked for next."""
        self._guess = _Guess(window)
        tasks.start_soon(self._read_guess, self._guess)

    async def read(self, window: Window) -> Reading:
        """Return this window, or its beginning if that was read ahead. Raises Unavailable or Superseded."""
        return await self.ahead(window) or await self._read(window)

    async def ahead(self, window: Window) -> Reading | None:
        """Return this window, or its beginning, if it was read ahead: without a connection that others may wait for."""
        guess, self._guess = self._guess, None
        if guess is None or not guess.begins(window):
            return None
        await guess.arrived.wait()
        reading = guess.reading
        return reading if reading is not None and reading.incarnation == self._database.incarnation else None

    async def _read(self, window: Window, guess: _Guess | None = None) -> Reading:
        incarnation = self._database.incarnation
        async with self._database.processing() as connection:
            if guess is not None:
                guess.under_way = True
            began = time.perf_counter()
            events, end = await log.read_window(connection, window, self._wanted)
            self._took(time.perf_counter() - began)
        return Reading(window, events, end, incarnation)

    async def _read_guess(self, guess: _Guess) -> None:
        try:
            guess.reading = await self._read(guess.window, guess)
        except ReactiveOrchError:
            pass  # the lane will read it itself, and meet the error itself
        finally:
            guess.arrived.set()
