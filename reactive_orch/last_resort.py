"""The end of a process that does not end by itself: tasks and threads of handlers may go on for ever."""

from __future__ import annotations

import contextlib
import os
import threading
from functools import partial
from typing import TYPE_CHECKING

from reactive_orch.streams import say

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LEFT_BEHIND_S = 10.0
"""How long what follows a worker's work may take: leaving, and what its handlers have left behind."""

_timer: threading.Timer | None = None


def end_after(work_s: float = 0.0, last_words: Callable[[], object] = lambda: None) -> None:
    """End this process with exit code 1, and say why, if it is still there a while after what may take so long.

    What was asked for before is forgotten.
    """
    global _timer  # noqa: PLW0603 - a process ends once
    stay()

    def end() -> None:
        last_words()
        say("something that a handler has started does not end: not waiting for it any longer")
        os._exit(1)

    _timer = threading.Timer(work_s + LEFT_BEHIND_S, end)
    _timer.daemon = True
    _timer.start()


def stay() -> None:
    """Take that back."""
    if _timer is not None:
        _timer.cancel()


@contextlib.contextmanager
def awaited(explain: Callable[[BaseException], object]) -> Iterator[None]:
    """Bound what comes after this block; what the block ended with is explained before an end of that kind."""
    try:
        yield
    except BaseException as error:
        end_after(last_words=partial(explain, error))
        raise
    end_after()
