"""An endpoint that is away, in two lines: one when export begins to fail, one when it works again.

The SDK warns of every attempt, again and again, with addresses and the words of exceptions. Nothing of that reaches the
log; what it says during an export is looked at for a reason that may be told.
"""

from __future__ import annotations

import enum
import logging
import re
import threading
import time
from typing import TYPE_CHECKING, TypeVar

from reactive_orch.errors import kind_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    _Result = TypeVar("_Result", bound=enum.Enum)

SAID_AGAIN_AFTER_S = 60.0
"""An endpoint that comes and goes is told of once in this time."""

_PHRASE = re.compile(r"(?!(spans|traces|metrics)$)[A-Za-z ]{1,40}")
"""What HTTP calls the status, `Service Unavailable`; no address, and not the SDK's word for the signal."""

_logger = logging.getLogger("reactive_orch")
_here = threading.local()


class Outage:
    """Whether one signal (`traces`, `metrics`) reaches its endpoint. Exports run in several threads."""

    def __init__(self, signal: str) -> None:
        """Begin in good health."""
        self._signal = signal
        self._lock = threading.Lock()
        self._failing = False
        self._said_at = -SAID_AGAIN_AFTER_S
        self._reason = "no reason given"

    def attempt(self, export: Callable[[], _Result]) -> _Result:
        """Return the result of this export, and note whether it succeeded. What it raises passes."""
        _here.outage, succeeded = self, False
        try:
            result = export()
            succeeded = result.name == "SUCCESS"
        finally:
            _here.outage = None
            self._ended(succeeded=succeeded)
        return result

    def heed(self, record: logging.LogRecord) -> None:
        """Take the reason from a line that the SDK writes during an export."""
        arguments = record.args if isinstance(record.args, tuple) else ()
        self._reason = " ".join(word for argument in arguments for word in _tellable(argument)) or self._reason

    def _ended(self, *, succeeded: bool) -> None:
        with self._lock:
            now = time.monotonic()
            if succeeded and self._failing:
                _logger.info("%s are exported again", self._signal, extra={"event": "export_resumed"})
                self._failing = False
            elif not succeeded and not self._failing and now - self._said_at >= SAID_AGAIN_AFTER_S:
                words = "%s cannot be exported and are dropped until it works again: %s"
                _logger.warning(words, self._signal, self._reason, extra={"event": "export_failing"})
                self._failing, self._said_at = True, now


def current() -> Outage | None:
    """Return what this thread is exporting for, None when it is not exporting."""
    return getattr(_here, "outage", None)


def _tellable(argument: object) -> Iterator[str]:
    match argument:
        case BaseException():
            yield kind_of(argument)
        case enum.Enum():
            yield argument.name
        case int():
            yield str(argument)
        case str() if _PHRASE.fullmatch(argument):
            yield argument
