"""What is said of the error that a command ends with, and its exit code."""

from __future__ import annotations

import asyncio
import errno
import sys
import traceback
from typing import TYPE_CHECKING

from reactive_orch.errors import (
    ConfigError,
    MissingRight,
    ReactiveOrchError,
    Rejected,
    Standby,
    TooManyConnections,
    Unavailable,
    text_of,
)
from reactive_orch.process.streams import nobody_reads, say, write_to_nobody
from reactive_orch.runtime.cancellation import ALL_CANCELLED

if TYPE_CHECKING:
    from collections.abc import Callable

EXIT_FAILED, EXIT_CONFIG, EXIT_UNREACHABLE = 1, 2, 3


def explain(error: BaseException, gives_rights: Callable[[], str] | None = None) -> int:
    """Say in one line on standard error what a command ended with, unless that needs no word; return the exit code.

    `gives_rights` tells what gives its role the rights that it needs.
    """
    error = telling(error)
    match error:
        case SystemExit():
            return error.code if isinstance(error.code, int) else EXIT_FAILED
        case KeyboardInterrupt():
            return EXIT_FAILED
        case BrokenPipeError() if nobody_reads():
            return EXIT_FAILED
        case OSError(errno=errno.ENOSPC | errno.EDQUOT | errno.EFBIG | errno.EIO):
            write_to_nobody()
            code, text = EXIT_FAILED, f"cannot write: {error.strerror}"
        case asyncio.CancelledError():
            code, text = EXIT_FAILED, ALL_CANCELLED
        case MissingRight() if gives_rights is not None:
            code, text = EXIT_CONFIG, f"the database role lacks a right: {error.lacking}; {gives_rights()}"
        case ConfigError() | Standby():
            code, text = EXIT_CONFIG, str(error)
        case Unavailable():
            code, text = EXIT_UNREACHABLE, _unavailable(error)
        case ReactiveOrchError():
            _trace(error.__cause__)
            code, text = EXIT_FAILED, str(error)
        case _:
            code, text = EXIT_FAILED, _unexpected(error)
    say(text)
    return code


def _unavailable(error: Unavailable) -> str:
    return (
        str(error) if isinstance(error, (Rejected, TooManyConnections)) else f"the database cannot be reached: {error}"
    )


def telling(error: BaseException) -> BaseException:
    """Return the one error to show out of a group of them: ours before others, the first before the rest."""
    if not isinstance(error, BaseExceptionGroup):
        return error
    leaves = [telling(inner) for inner in error.exceptions]
    return next((leaf for leaf in leaves if isinstance(leaf, ReactiveOrchError)), leaves[0])


def _trace(error: BaseException | None) -> None:
    if error is not None and sys.flags.dev_mode:
        traceback.print_exception(error)


def _unexpected(error: BaseException) -> str:
    _trace(error)
    frames = traceback.extract_tb(error.__traceback__)
    where = f" at {frames[-1].filename}:{frames[-1].lineno}" if frames else ""
    return f"unexpected {type(error).__name__}{where}: {text_of(error)} (python -X dev shows the whole traceback)"
