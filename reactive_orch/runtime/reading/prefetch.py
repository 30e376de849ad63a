"""Fetches the windows of one lane, one ahead: while a batch is handled, the next is read on another connection.

What is read ahead is a guess at the next window. It is used if the lane then asks for the same partitions from the same
position, with the same limit, in the same incarnation of the database; otherwise it is thrown away (protocol 4.3). The
lane's progress decides which of its events count, as for any window. What another lane has fetched, or is fetching,
comes from the window cache.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

from reactive_orch.errors import ReactiveOrchError, Superseded, Unreadable
from reactive_orch.model.reports import WindowRead
from reactive_orch.postgres import windows
from reactive_orch.runtime.interruptions import passing_over
from reactive_orch.runtime.reading.window_cache import Fetch, Fetched

if TYPE_CHECKING:
    from anyio.abc import TaskGroup

    from reactive_orch.model import Filter, Position, Window
    from reactive_orch.model.reports import Emit, Subject
    from reactive_orch.runtime.reading.follower import LogFollower
    from reactive_orch.runtime.reading.window_cache import WindowCache


class Prefetcher:
    """The windows of one lane."""

    def __init__(self, follower: LogFollower, wanted: Filter, cache: WindowCache, subject: Subject, emit: Emit) -> None:
        """Fetch nothing yet. `subject` is what is read for."""
        self._database = follower.database
        self._log = follower.log.name
        self._wanted = wanted
        self._cache = cache
        self._subject, self._emit = subject, emit
        self._guess: Fetch | None = None

    @property
    def coming(self) -> bool:
        """Whether a window with events was read ahead, or the database is at work on one: it will not be long."""
        guess = self._guess
        if guess is None or not guess.under_way:
            return False
        return bool(guess.fetched.events) if guess.fetched else not guess.arrived.is_set()

    def read_ahead(self, tasks: TaskGroup, window: Window) -> None:
        """Start to read what is likely to be asked for next, unless it is in the cache."""
        self._guess = self._cache.find(window)
        if self._guess is None:
            self._guess = self._begin(window)
            tasks.start_soon(self._read_guess, self._guess)

    def give(self, fetched: Fetched) -> None:
        """Have this window when it is asked for."""
        self._guess = Fetch(fetched.window, under_way=True, fetched=fetched)
        self._guess.arrived.set()

    async def read(self, window: Window) -> Fetched:
        """Return this window, or its beginning if that was read ahead. Raises Unavailable, Superseded or Unreadable."""
        fetched = await self.ahead(window) or await self._cached(window)
        return fetched or await self._perform(self._begin(window))

    async def past_gap(self, fetched: Fetched, settled: Position) -> Fetched:
        """Return an empty window up to before the next event there is, of any partition; at most up to `settled`.

        What is settled is visible to whoever looks later, and no event can come where none is. Raises Unavailable.
        """
        # With a short time-out of the server's: past millions of deleted rows it takes long, and is not worth it.
        end = fetched.end
        with passing_over(self._emit, "lane", Superseded, of=self._subject):
            async with self._database.coordination(fetched.window.incarnation) as connection:
                following = await windows.next_position(connection, self._log, end, settled)
            end = settled if following is None else following - 1
        return replace(fetched, end=end)

    async def ahead(self, window: Window) -> Fetched | None:
        """Return this window, or its beginning, if it was read ahead: without a connection that others may wait for."""
        guess, self._guess = self._guess, None
        return await self._arrived(guess) if guess is not None and guess.begins(window) else None

    async def _cached(self, window: Window) -> Fetched | None:
        while (fetch := self._cache.find(window)) is not None:
            if (fetched := await self._arrived(fetch)) is not None:
                return fetched
        return None

    async def _arrived(self, fetch: Fetch) -> Fetched | None:
        await fetch.arrived.wait()
        return fetch.fetched

    def _begin(self, window: Window) -> Fetch:
        fetch = Fetch(window)
        self._cache.put(fetch)
        return fetch

    async def _perform(self, fetch: Fetch) -> Fetched:
        try:
            fetch.fetched = Fetched(fetch.window, *await self._found(fetch))
            self._cache.weigh(fetch)
            return fetch.fetched
        finally:
            fetch.arrived.set()

    async def _found(self, fetch: Fetch) -> windows.Found:
        try:
            return await self._ask(fetch)
        except Unreadable:
            # A connection that knows stale types and plans says the same: what a new one says counts.
            await self._database.renew()
            return await self._ask(fetch)

    async def _ask(self, fetch: Fetch) -> windows.Found:
        async with self._database.processing(fetch.window.incarnation) as connection:
            fetch.under_way = True
            began = time.perf_counter()
            found = await windows.read_window(connection, self._log, fetch.window, self._wanted)
            self._emit(WindowRead(self._subject, time.perf_counter() - began))
            return found

    async def _read_guess(self, guess: Fetch) -> None:
        with passing_over(self._emit, "read ahead", ReactiveOrchError, of=self._subject):
            # Whoever asks for it will read it, and meet the error.
            await self._perform(guess)
