"""The end of a process that does not end by itself: tasks and threads of handlers may go on for ever."""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import sys
import threading
from functools import partial
from typing import TYPE_CHECKING, Any

from reactive_orch.process.streams import say

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LAST_WORDS_S = 1.0
"""How long the last words may take: nobody may be reading what is written."""

LEFT_BEHIND_S = 10.0
"""So long may take what comes after a worker's work: leaving, and what its handlers have left behind."""

SIGNALS = (signal.SIGTERM, signal.SIGINT)

_timer: threading.Timer | None = None
_handlers_before: dict[int, Any] = {}
"""Signal → what was done at it before `at_signals`."""


def end_after(
    work_s: float = 0.0, explain: Callable[[BaseException], object] | None = None, error: BaseException | None = None
) -> None:
    """End this process with exit code 1 if it is still there `work_s` + 10 seconds from now.

    It explains `error` first, if there is one, and says why it ends. A later call takes the place of an earlier one.
    """
    global _timer  # noqa: PLW0603 - a process ends once
    _cancel()
    last_words = partial(explain, error) if explain and error else None
    _timer = threading.Timer(work_s + LEFT_BEHIND_S, _end, [last_words])
    _timer.daemon = True
    _timer.start()


def _end(last_words: Callable[[], object] | None) -> None:
    def speak() -> None:
        if last_words is not None:
            last_words()
        say("something that a handler has started does not end: not waiting for it any longer")
        sys.stdout.flush()

    try:
        speaking = threading.Thread(target=speak, daemon=True)
        speaking.start()
        speaking.join(LAST_WORDS_S)
    finally:
        os._exit(1)


def _cancel() -> None:
    if _timer is not None:
        _timer.cancel()


def at_signals() -> None:
    """End this process at once, with exit code 1, at the next SIGTERM or SIGINT.

    At SIGINT Python would show a traceback and wait on; SIGTERM would end it without our exit code.
    """
    for number in SIGNALS:
        _handlers_before.setdefault(number, signal.signal(number, lambda *_: os._exit(1)))


def ignore_signals_last() -> None:
    """Ignore signals once all is done that is done at exit: an interpreter that is taken apart would die of one.

    To be called before others ask for something at exit: what was asked for last is done first.
    """
    atexit.register(lambda: [signal.signal(number, signal.SIG_IGN) for number in SIGNALS])


def stay() -> None:
    """Take back what `end_after` and `at_signals` have arranged: this process goes on."""
    _cancel()
    while _handlers_before:
        signal.signal(*_handlers_before.popitem())


@contextlib.contextmanager
def awaited(explain: Callable[[BaseException], object]) -> Iterator[None]:
    """Have the process end 10 s after this block, if it is still there; what the block raised is explained then."""
    try:
        yield
    except BaseException as error:
        end_after(0.0, explain, error)
        raise
    end_after()
