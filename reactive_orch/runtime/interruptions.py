"""What the loops pass over: errors after which they simply try again. None of them goes uncounted."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

from reactive_orch.core.health import Stall
from reactive_orch.errors import MissingRight, named
from reactive_orch.model.reports import Interrupted

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from reactive_orch.model.reports import Emit, Subject

RECENT_S = 30.0
"""An error passed over within this time explains why nothing moves: no loop pauses for longer between attempts."""


class Interruptions:
    """Those of one loop, or of all the loops of one projection: since when nothing has succeeded, and why."""

    def __init__(self, emit: Emit, *of: str) -> None:
        """Begin undisturbed. `of`: the replica set, the projection and its log, if it is theirs."""
        self.since: float | None = None
        """When the first error was passed over since the last success, by the monotonic clock."""
        self._emit, self._of = emit, of
        self._last, self._last_at = "", 0.0

    def note(self, place: str, error: BaseException) -> None:
        """Tell of an error that is passed over. `place`: which loop, one of those in the table of metrics."""
        self._emit(Interrupted(place, error, *self._of))
        self._last, self._last_at = named(error), time.monotonic()
        self.since = self.since or self._last_at

    def over(self) -> None:
        """Note a success."""
        self.since = None

    @property
    def cause(self) -> str:
        """The type and code of the last error, if it is recent; else empty."""
        return self._last if time.monotonic() - self._last_at < RECENT_S else ""

    def stalls(self, of: Subject, what: str) -> Iterator[Stall]:
        """Yield for how long what this loop does has not succeeded, if it has not."""
        if self.since is not None:
            yield Stall(of, time.monotonic() - self.since, self._last, what)


@contextlib.contextmanager
def passing_over(emit: Emit, place: str, *errors: type[Exception], of: Sequence[str] = ()) -> Iterator[None]:
    """Suppress these errors in the block, and tell of them. `of`: as in `Interruptions`.

    A missing right, which no pause brings, is one of them only where it is named.
    """
    try:
        yield
    except errors as error:
        if isinstance(error, MissingRight) and MissingRight not in errors:
            raise
        emit(Interrupted(place, error, *of))
