"""Ctrl-C before there is an event loop that heeds it, and after: it ends the process quietly.

Python's own way, a KeyboardInterrupt wherever it happens to be, shows a traceback of an import, or is lost in a
callback. This module imports next to nothing, so that it can be the first one.
"""

from __future__ import annotations

import _signal as signal  # type: ignore[import-not-found] # `signal` imports enum: as long as Python takes to start
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sys import UnraisableHookArgs
    from typing import NoReturn

EXIT_INTERRUPTED = 1
"""As of all that ends without having done what it was for."""

_complain = sys.unraisablehook


def end_at_once() -> None:
    """From now on end this process at SIGINT; unless that is ignored, as of what a shell runs in the background."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, end)
    sys.unraisablehook = _unraisable


def raise_again() -> None:
    """From now on raise KeyboardInterrupt: what has been begun must be given up in good order."""
    if signal.getsignal(signal.SIGINT) is end:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def end(*_: object) -> NoReturn:
    """End this process."""
    os._exit(EXIT_INTERRUPTED)


def _unraisable(error: UnraisableHookArgs) -> None:
    if error.exc_type is KeyboardInterrupt:  # Python would mention it and go on
        end()
    _complain(error)
