"""What one lane reads next, and what it does about windows that cannot be read."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio

from reactive_orch.core.pace import Pace
from reactive_orch.errors import Superseded, Unavailable, Unreadable
from reactive_orch.model.reports import EventUnreadable, ReadCut
from reactive_orch.postgres.faults import took_too_long
from reactive_orch.runtime.backoff import Backoff
from reactive_orch.runtime.reading.prefetch import Prefetcher

if TYPE_CHECKING:
    from anyio.abc import TaskGroup

    from reactive_orch.core.progress import Progress
    from reactive_orch.model import Window
    from reactive_orch.runtime.handling.failures import Failures
    from reactive_orch.runtime.handling.scope import Scope
    from reactive_orch.runtime.reading.fresh import Fresh
    from reactive_orch.runtime.reading.window_cache import Fetched, WindowCache


class LaneWindows:
    """The windows of one lane, as its progress asks for them."""

    def __init__(self, scope: Scope, progress: Progress, failures: Failures, cache: WindowCache) -> None:
        """Read nothing yet."""
        self._scope = scope
        self._progress = progress
        self._failures = failures
        self.pace = Pace(scope.config.batch_events)
        """How large a batch may be."""
        self._subject, self._emit = scope.subject, scope.watchers.emit
        self._wanted = scope.projection.filter
        self._prefetcher = Prefetcher(scope.follower, self._wanted, cache, self._subject, self._emit)
        self._cut_off_again = Backoff(0.001, 1.0)

    @property
    def coming(self) -> bool:
        """Whether a window with events was read ahead, or the database is at work on one: it will not be long."""
        return self._prefetcher.coming

    @property
    def limit(self) -> int:
        """How many events the next batch may have."""
        return self._failures.attempts.limit_of(self._progress.low_water or 0, self.pace.events)

    def window(self) -> Window | None:
        """Return what to read next; None at the settled end of the log, and where that is not known."""
        settled = self._scope.follower.settled_in(self._progress.incarnation)
        return None if settled is None else self._progress.window(settled, self.limit)

    async def read(self, window: Window) -> Fetched | None:
        """Return the window, or None when a time-out cut it off at the server: then narrower ones are to be read.

        Raises Unreadable, Superseded or Unavailable.
        """
        try:
            fetched = await self._prefetcher.read(window)
        except Unreadable as error:
            self._failures.unreadable(window, error, self._progress)
            self._emit(EventUnreadable(self._subject, error))
            raise
        except (Superseded, Unavailable) as error:
            if not took_too_long(error):
                raise
            await self._cut_off(window, error)
            return None
        self._cut_off_again.reset()
        settled = self._scope.follower.settled_in(window.incarnation)
        if settled is not None and not fetched.events and self._progress.widest(window):
            return await self._prefetcher.past_gap(fetched, settled)
        return fetched

    def among(self, fresh: Fresh) -> Fetched | None:
        """Return what is to be read next if all of it is among these events."""
        window = self.window()
        return None if window is None else fresh.fetched(window, self._wanted, self._progress.read_to)

    def give(self, fetched: Fetched) -> None:
        """Have this window when it is read."""
        self._prefetcher.give(fetched)

    async def ahead(self) -> Fetched | None:
        """Return the next window if it was read ahead: without a connection that others may wait for."""
        window = self.window()
        return None if window is None else await self._prefetcher.ahead(window)

    def read_ahead(self, tasks: TaskGroup, fetched: Fetched) -> None:
        """Start to read what is likely to be asked for after this window."""
        settled = self._scope.follower.settled_in(self._progress.incarnation)
        if fetched.events and settled is not None and not self._failures.attempts.limits(fetched.end):
            following = self._progress.following(fetched.window, fetched.end, settled)
            if following is not None:
                self._prefetcher.read_ahead(tasks, following)

    async def _cut_off(self, window: Window, error: Superseded | Unavailable) -> None:
        self._progress.narrow(window)
        self._emit(ReadCut(self._subject, window, error))
        if isinstance(error, Unavailable):
            raise error
        # Reading puts nothing in doubt: what was read before is saved in its turn, or it would begin anew for ever.
        self._scope.interruptions.note("lane", error)
        await anyio.sleep(self._cut_off_again.next_s())
