"""Standard streams as they are found: closed, with nobody at the other end, or of an encoding that lacks characters.

None of these is an error of the command: what cannot be shown is escaped, what nobody wants to read is dropped.
"""

from __future__ import annotations

import contextlib
import io
import os
import select
import sys

_STANDARD_ERROR = 2


def say(text: str) -> None:
    """Say something in one line on standard error; if nobody reads it, the exit code has to do."""
    with contextlib.suppress(OSError):
        print(f"reactive_orch: {' '.join(text.split())}", file=sys.stderr, flush=True)


class StandardError(io.TextIOBase):
    """Standard error as it is at the moment of each line: a bar that is drawn there lets lines pass above it."""

    def write(self, text: str) -> int:
        """Write as the present one does."""
        return sys.stderr.write(text)

    def flush(self) -> None:
        """Flush as the present one does."""
        sys.stderr.flush()

    def isatty(self) -> bool:
        """Tell whether it is a terminal."""
        return sys.stderr.isatty()


def open_streams() -> None:
    """Make standard output and standard error usable, whatever they are."""
    # The next file or socket would get the number of a closed stream, and with it what is printed.
    while (number := os.open(os.devnull, os.O_RDWR)) <= _STANDARD_ERROR:
        pass
    os.close(number)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: PTH123, SIM115 - for the process's life
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def nobody_reads() -> bool:
    """Tell whether standard output was closed at the other end (`… | head`), and let Python write to nobody then."""
    closed = is_closed_at_the_other_end()
    if closed:
        write_to_nobody()
    return closed


def is_closed_at_the_other_end() -> bool:
    """Tell whether whoever read standard output has gone."""
    output = select.poll()
    output.register(sys.stdout.fileno(), 0)
    return any(event & select.POLLERR for _, event in output.poll(0))


def write_to_nobody() -> None:
    """Let what Python still writes at its end go to nobody: it would complain in words and with a code of its own."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
