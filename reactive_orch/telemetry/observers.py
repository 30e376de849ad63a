"""Who is told: spans, metrics and log lines, by default. An application's observers take their place.

What becomes of a report is nobody's concern in the engine. An observer that raises is left out from then on.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Generic, TypeVar

from reactive_orch.errors import kind_of
from reactive_orch.model.reports import Untraced, Watchers
from reactive_orch.telemetry import lines
from reactive_orch.telemetry.by_type import Handles, by_type
from reactive_orch.telemetry.metrics import Metrics
from reactive_orch.telemetry.registry import REGISTRY
from reactive_orch.telemetry.spans.observer import Spans
from reactive_orch.telemetry.spans.tracer import is_traceparent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from contextlib import AbstractContextManager
    from types import TracebackType

    from reactive_orch.model import Change, Event, EventHandler, Snapshot, Turn
    from reactive_orch.model.reports import Emit, Observer, Report, Subject, Tracing

_Answer = TypeVar("_Answer")
_Given = TypeVar("_Given")

_NOTHING = contextlib.nullcontext()
_logger = logging.getLogger("reactive_orch")

SPANS = Spans()
TABLES: tuple[Handles, ...] = (SPANS.handles, Metrics(REGISTRY, SPANS.sent_of).handles, lines.HANDLES)
"""The default observers' tables, one set for the process as the registry is. Spans come first: exemplars name them."""


_THEIRS = (Exception, asyncio.CancelledError)
"""What counts as the watcher's own failure. A cancellation does too: a call that does not wait cannot be cancelled."""


def default_observers() -> tuple[Observer, ...]:
    """Return those that a process has unless it says otherwise."""
    return tuple(map(by_type, TABLES))


def watchers(observers: Iterable[Observer] | None = None, tracing: Tracing | None = None) -> Watchers:
    """Return who watches; the defaults for None. Nothing that they raise gets back to who tells or asks."""
    told = default_observers() if observers is None else observers
    return Watchers(telling(told), Guarded(SPANS if tracing is None else tracing))


def telling(observers: Iterable[Observer]) -> Emit:
    """Return what tells each of them of a report."""
    present = tuple(observers)

    def emit(report: Report) -> None:
        for observer in present:
            try:
                observer(report)
            except _THEIRS as error:
                leave_out(observer, error)

    def leave_out(observer: Observer, error: BaseException) -> None:
        nonlocal present
        present = tuple(each for each in present if each is not observer)
        _say_left_out("an observer", error)

    return emit


def _say_left_out(who: str, error: BaseException) -> None:
    words = "%s failed and is left out until the process starts again: %s"
    _logger.warning(words, who, kind_of(error), extra={"event": "observer_failed"})


def _no_answer() -> TypeError:
    return TypeError("this is no answer")


class Guarded:
    """A tracing that lets nothing out, and is not asked again once it has failed."""

    def __init__(self, tracing: Tracing) -> None:
        """Ask this one."""
        self._tracing = tracing

    def generation(self, turn: Turn, snapshot: Snapshot, change: Change) -> str | None:
        """Return its traceparent of a generation."""
        answer = self._asked(lambda tracing: tracing.generation(turn, snapshot, change))
        return self._demand(answer, holds=_is_answer(answer))

    def batch(self, subject: Subject, generation: int, events: Sequence[Event]) -> AbstractContextManager[str | None]:
        """Return its context of a batch."""
        context = self._asked(lambda tracing: tracing.batch(subject, generation, events))
        return _Inside(context or _NOTHING, self._leave_out, _is_answer)

    def each(self, subject: Subject, handler: EventHandler) -> EventHandler:
        """Return its handler."""
        answer = self._asked(lambda tracing: tracing.each(subject, handler))
        return (answer and self._demand(answer, holds=callable(answer))) or handler

    def quiet(self) -> AbstractContextManager[object]:
        """Return its context."""
        return _Inside(self._asked(lambda tracing: tracing.quiet()) or _NOTHING, self._leave_out)

    def _demand(self, answer: _Answer, *, holds: bool) -> _Answer | None:
        if not holds:
            self._leave_out(_no_answer())
        return answer if holds else None

    def _asked(self, question: Callable[[Tracing], _Answer]) -> _Answer | None:
        try:
            return question(self._tracing)
        except _THEIRS as error:
            self._leave_out(error)
            return None

    def _leave_out(self, error: BaseException) -> None:
        self._tracing = Untraced()
        _say_left_out("tracing", error)


def _is_answer(given: object) -> bool:
    return given is None or (isinstance(given, str) and is_traceparent(given))


class _Inside(Generic[_Given]):
    """A context whose failure, on entry or exit, does not reach the block. The block's errors pass."""

    __slots__ = ("_context", "_failed", "_holds")

    def __init__(
        self,
        context: AbstractContextManager[_Given | None],
        failed: Callable[[BaseException], None],
        holds: Callable[[object], bool] = lambda _given: True,
    ) -> None:
        self._context: AbstractContextManager[_Given | None] = context
        self._failed = failed
        self._holds = holds

    def __enter__(self) -> _Given | None:
        try:
            given = self._context.__enter__()
        except _THEIRS as error:
            self._failed(error)
            self._context = _NOTHING
            return None
        if self._holds(given):
            return given
        self._failed(_no_answer())
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._context.__exit__(None, None, None)
        except _THEIRS as failure:
            self._failed(failure)
