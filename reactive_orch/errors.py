"""Every error this package raises, named by what the one who catches it should do.

One root, so that an application can catch all of them; each branch answers a different question at the
catch site. What asyncpg raises about a connection, a conflict, the schema or a privilege becomes one of these,
with asyncpg's as the `__cause__`. So does what a user's handler raises. Two kinds stay asyncpg's: the fault of one
statement alone, and, but for Conflict, whatever `append` and `read_stream` meet on the caller's own connection.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType, TracebackType

_SQLSTATE = re.compile(r"[0-9A-Z]{5}")


class ReactiveOrchError(Exception):
    """Root of all errors of this package."""


class ConfigError(ReactiveOrchError):
    """The operator must change something before this can work (exit code 2)."""


class MissingRight(ConfigError):
    """The database role may not do what this program does; the command `grants` prints what it needs."""

    def __init__(self, lacking: str) -> None:
        """Keep what PostgreSQL says."""
        super().__init__(
            f"the database role lacks a right: {lacking}; `python -m reactive_orch grants` prints what it needs"
        )
        self.lacking = lacking


class UnsafeLog(ConfigError):
    """The event log, or the server it lives on, breaks a rule the frontier relies on: reading on would lose events."""


class Unavailable(ReactiveOrchError):
    """The database is out of reach or the connection was lost: back off and try again (exit code 3 at start)."""


class Exhausted(Unavailable):
    """The server lacks disk, memory or connections. Nothing was lost: try again after pauses that grow."""


class TooManyConnections(Exhausted):
    """The server lets nobody of this role connect to this database for now. Its text is ours and holds no values."""


class Rejected(Unavailable):
    """The server was reached, and does not let us in. Its text says all of it."""


class Standby(Unavailable):
    """Only a standby answers: the primary is needed (exit code 2 at start; later a failover may bring one)."""


class Superseded(ReactiveOrchError):
    """A checkpoint or the generation moved on: drop the work in hand, reload, go on."""


class Locked(Superseded):
    """A table is locked. The text says by whom, for how long, and what ends that; `who` is the same at each look."""

    def __init__(self, message: str, who: str) -> None:
        """Keep who has locked what."""
        super().__init__(message)
        self.who = who


class Deadlock(Superseded):
    """Handlers have waited for each other's rows, and the server has ended this one's transaction: do it again."""


class HandlerFailed(ReactiveOrchError):
    """One attempt of a handler failed and its batch was rolled back: policy decides what comes next.

    `index` is that of the failing event in its batch, None when the handler took the whole batch at once.
    """

    def __init__(self, message: str, index: int | None = None) -> None:
        """Keep which event failed."""
        super().__init__(message)
        self.index = index


class TimedOut(HandlerFailed):
    """A handler has taken too long. The text says how long it may take and what sets that, and holds no values."""


class Unreadable(HandlerFailed):
    """An event of the log, at `position` of `partition`, cannot be read: that counts as a failure of its handler."""

    def __init__(self, message: str, position: int, partition: int) -> None:
        """Keep which event it is."""
        super().__init__(message, 0)
        self.position, self.partition = position, partition


class Deadly(HandlerFailed):
    """An event has ended what handled it, `deaths` times: its text, which is ours, says what."""

    def __init__(self, message: str, deaths: int) -> None:
        """Keep how often."""
        super().__init__(message, 0)
        self.deaths = deaths


class KilledProcess(Deadly):
    """A process, of the name `worker`, was lost while a lane of it had nothing but one event in hand."""

    def __init__(self, worker: str, lane: int) -> None:
        """Keep whose."""
        super().__init__(f"worker {worker} was lost while it handled the event, and nobody knows why", 1)
        self.worker, self.lane = worker, lane


class KilledConnection(Deadly):
    """The connection of its batch was lost whenever an event was handled alone."""

    def __init__(self, losses: int) -> None:
        """Keep how often."""
        super().__init__(f"the connection of its batch was lost {losses} times in a row while it was handled", losses)


class Refused(ReactiveOrchError):
    """A projection is recorded with another filter; the argument is its name. The worker goes on without it."""


class Undecodable(ReactiveOrchError, ValueError):
    """An event is not what its class says: the text names its type and version, and the fields that are wrong."""


class ProjectionFailed(ReactiveOrchError):
    """A handler failed for good (exit code 1).

    `__cause__` is what it raised at its last attempt.
    """


class TooMuchWaits(ProjectionFailed):
    """More keys of a projection fail, or more events wait with them, than somebody can look at."""


class Outage(ProjectionFailed):
    """Many keys of a projection have failed alike, one after the other: what its handler needs is away, perhaps.

    Neither the text nor the `reason` holds values. `failing_for_s`: since the first of them failed.
    """

    def __init__(self, projection: str, reason: str, failing_for_s: float = 0.0) -> None:
        """Keep why."""
        super().__init__(f"projection {projection!r}: {reason}")
        self.reason, self.failing_for_s = reason, failing_for_s


class CallsHang(ReactiveOrchError):
    """Calls of a blocking handler were cut off and have not returned from their threads: too many for another one."""

    def __init__(self, calls: int) -> None:
        """Count them."""
        super().__init__(f"{calls} calls of this handler that were cut off hang in their threads")


class Conflict(ReactiveOrchError):
    """An append expected another version of the aggregate's stream: read it again and decide anew."""


class NotHandled(ReactiveOrchError):
    """A position was not handled within the time that somebody waits for it. What it is will be handled later, or not.

    `reason` says why, without values: how far the projection is, that it rests, that the event's key fails.
    """

    def __init__(self, what: str, reason: str) -> None:
        """Keep why."""
        super().__init__(f"{what}: {reason}")
        self.reason = reason


def text_of(error: BaseException) -> str:
    """Return an error's text. A user's own class may fail at that: then what Python shows of it in a traceback."""
    try:
        return str(error)
    except (Exception, SystemExit):  # noqa: BLE001 - a user's own
        return "<exception str() failed>"


def described(error: BaseException) -> str:
    """Return an error's type and text in one line."""
    text = " ".join(text_of(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def kind_of(error: BaseException) -> str:
    """Return what may be told of an error to anybody: its SQLSTATE or its type, never its text, which holds values.

    Of an error of ours it is that of its cause.
    """
    error = _origin(error)
    return sqlstate_of(error) or type(error).__name__


def named(error: BaseException) -> str:
    """Return what a log line may tell of an error: its type, which says more to people, and its SQLSTATE if it has one.

    Of an error of ours it is that of its cause. A TimedOut, a Deadly, a TooManyConnections, and a CallsHang, an
    Unavailable or a Superseded without a cause, are told by their texts, which are ours.
    """
    if isinstance(error, (TimedOut, Deadly, TooManyConnections)):
        return str(error)
    error = _origin(error)
    if isinstance(error, (CallsHang, Unavailable, Superseded)) and str(error):
        return str(error)
    sqlstate = sqlstate_of(error)
    return f"{type(error).__name__} ({sqlstate})" if sqlstate else type(error).__name__


def place_of(error: BaseException) -> str | None:
    """Return the innermost line of a user's own code that an error has come through, as `file:line`; None without one.

    Own is neither this package nor Python nor what is installed, nor made by it in memory (`<string>`); where all is
    installed it is the first line that is not of this package. Of an error of ours it is that of its cause, of a group
    that of its first error that has one.
    """
    error = _origin(error)
    if isinstance(error, BaseExceptionGroup) and (place := next(filter(None, map(place_of, error.exceptions)), None)):
        return place
    own, first, trace = None, None, error.__traceback__
    while trace is not None:
        file = _file_of(trace.tb_frame)
        if not file.startswith(_OURS):
            first = f"{file}:{trace.tb_lineno}" if first is None else first
            own = own if file.startswith(("<", *_installed())) else f"{file}:{trace.tb_lineno}"
        trace = trace.tb_next
    return own or first


def _file_of(frame: FrameType) -> str:
    """Return where the code of a frame is. That of an extension module names a source that was never installed."""
    file = frame.f_code.co_filename
    return file if Path(file).is_absolute() else str(frame.f_globals.get("__file__") or file)


def traceback_of(error: BaseException) -> str:
    """Return an error's traceback, from the first line on that is not this package's, as Python prints it.

    Of a longer one, the last 64,000 characters: there is what was raised.
    """
    import traceback  # only where something has failed

    return "".join(traceback.format_exception(type(error), error, own_traceback(error)))[-_TRACEBACK_MOST:]


def own_traceback(error: BaseException) -> TracebackType | None:
    """Return an error's traceback from the first line on that is not this package's; None when all are."""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename.startswith(_OURS):
        trace = trace.tb_next
    return trace


_TRACEBACK_MOST = 64_000
_OURS = f"{Path(__file__).parent}/"


@cache
def _installed() -> tuple[str, ...]:
    import sysconfig  # only where something has failed

    return tuple(f"{sysconfig.get_path(name)}/" for name in ("stdlib", "purelib", "platlib"))


def lineage(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error, what it came from, and so on, each once: a user's error may be its own cause."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        yield error
        seen.add(id(error))
        error = error.__context__ if error.__cause__ is None else error.__cause__


def _origin(error: BaseException) -> BaseException:
    for origin in lineage(error):
        if not isinstance(origin, ReactiveOrchError) or origin.__cause__ is None:
            return origin
    return error


def sqlstate_of(error: BaseException) -> str | None:
    """Return the SQLSTATE that an error carries, or the driver's error in one of SQLAlchemy; None without one."""
    try:
        sqlstate = getattr(getattr(error, "orig", error), "sqlstate", None)
    except (Exception, SystemExit):  # noqa: BLE001 - a property of a user's own class
        return None
    return sqlstate if isinstance(sqlstate, str) and _SQLSTATE.fullmatch(sqlstate) else None
