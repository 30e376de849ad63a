"""What has happened: the values that the runtime tells, and whom it tells.

A report is made once, when the thing is over, and nobody answers. So it is cheap: a named tuple of what the runtime has
in hand anyway. What must be known earlier is asked for (`Tracing`). Nothing that is needed to work depends on either.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Sequence

    from reactive_orch.model.events import Event
    from reactive_orch.model.projections import EventHandler


class Subject(NamedTuple):
    """What a report of handling is about: a projection in a replica set."""

    replica_set: str
    projection: str


class RunnerStarted(NamedTuple):
    """A worker begins to run a projection."""

    subject: Subject


class WindowRead(NamedTuple):
    """The database has answered with a window."""

    subject: Subject
    duration_s: float


class EventUnreadable(NamedTuple):
    """An event cannot be read: an attempt has failed before its handler was called."""

    subject: Subject
    error: BaseException


class BatchEnded(NamedTuple):
    """A batch was committed or rolled back."""

    subject: Subject
    events: Sequence[Event]
    """Those that were handled; all that were to be if that has failed."""
    duration_s: float
    failure: BaseException | None
    """What has rolled it back; None if it was committed."""
    traceparent: str | None
    """What `Tracing.batch` has given."""


Report: TypeAlias = RunnerStarted | WindowRead | EventUnreadable | BatchEnded

Observer: TypeAlias = Callable[[Report], None]
"""Is told of each report, at once and in the task that it happens in: it must be quick, and must not wait."""

Emit: TypeAlias = Callable[[Report], None]
"""Tells all observers. Raises nothing, whatever they do."""


class Tracing(Protocol):
    """What must be known before something is over. The engine works with every answer, and without one."""

    def batch(self, subject: Subject, generation: int, events: Sequence[Event]) -> AbstractContextManager[str | None]:
        """Return the context that the handlers of a batch run in; it gives the traceparent of the batch, if any.

        `BatchEnded` is told inside.
        """
        ...

    def each(self, subject: Subject, handler: EventHandler) -> EventHandler:
        """Return a handler that does the same, for a trace of each event."""
        ...

    def quiet(self) -> AbstractContextManager[None]:
        """Return a context in which an instrumented database driver makes no spans: for what is no handler's."""
        ...


class Untraced:
    """Nobody traces."""

    def batch(self, subject: Subject, generation: int, events: Sequence[Event]) -> AbstractContextManager[str | None]:
        """Do nothing."""
        del subject, generation, events
        return nullcontext()

    def each(self, subject: Subject, handler: EventHandler) -> EventHandler:
        """Return the same handler."""
        del subject
        return handler

    def quiet(self) -> AbstractContextManager[None]:
        """Do nothing."""
        return nullcontext()


class Watchers(NamedTuple):
    """Who watches a process: told of what has happened, asked for what must be known before."""

    emit: Emit
    tracing: Tracing
