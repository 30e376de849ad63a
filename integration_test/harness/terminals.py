"""A terminal as a user has one, and a command in it: what its screen shows, what is typed, how it is left."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from typing import TYPE_CHECKING, Any, Self

from integration_test.harness.command_line import environment
from integration_test.harness.processes import ROOT
from integration_test.harness.waiting import TIMEOUT_S, wait_until

if TYPE_CHECKING:
    import signal
    from collections.abc import Mapping, Sequence

ENTERED, LEFT = "\x1b[?1049h", "\x1b[?1049l"
"""Another screen than the shell's is begun, and ended."""
SHOW_CURSOR = "\x1b[?25h"
OURS = (sys.executable, "-m", "reactive_orch")
_HOME = "\x1b[H"
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def on_a_terminal(command: Sequence[str], env: Mapping[str, str], columns: int = 100) -> str:
    """Run a command to its clean end and return what it writes to a terminal of this width."""
    own, others = pty.openpty()
    fcntl.ioctl(others, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    process = subprocess.Popen(command, cwd=ROOT, env=env, stdin=subprocess.DEVNULL, stdout=others, stderr=others)
    os.close(others)
    written = bytearray()
    with contextlib.suppress(OSError):  # what Linux says when nobody has the other end any more
        while part := os.read(own, 1 << 16):
            written += part
    os.close(own)
    assert process.wait(TIMEOUT_S) == 0, written
    return written.decode().replace("\r\n", "\n")


class Terminal:
    """A command in a terminal of its own. An async context manager; the command is killed at its end."""

    def __init__(
        self, *arguments: str, columns: int = 80, lines: int = 24, command: Sequence[str] = OURS, **variables: str
    ) -> None:
        """Prepare; entering starts it. `variables` are all that its environment says of databases."""
        self._command = *command, *arguments
        self._variables = {"TERM": "xterm-256color", **variables}
        self._size = columns, lines
        self.written = ""
        """All that the command has written."""
        self._resized_at = 0

    async def __aenter__(self) -> Self:
        self._ours, self._its = pty.openpty()
        os.set_blocking(self._ours, False)
        self.resize(*self._size)
        self.attributes_before = self.attributes
        self._process = await asyncio.create_subprocess_exec(
            *self._command,
            cwd=ROOT,
            env=environment(self._variables),
            stdin=self._its,
            stdout=self._its,
            stderr=self._its,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # so that keys and its size send signals
        )
        asyncio.get_running_loop().add_reader(self._ours, self._read)
        return self

    async def __aexit__(self, *error: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()
        asyncio.get_running_loop().remove_reader(self._ours)
        os.close(self._its)
        os.close(self._ours)
        if error[0] is not None:
            sys.stderr.write(f"----- the terminal's screen\n{self.screen}\n-----\n{self.written[-2000:]!r}\n")

    def _read(self) -> None:
        with contextlib.suppress(OSError):
            self.written += os.read(self._ours, 1 << 20).decode(errors="replace")

    @property
    def pid(self) -> int:
        """The command's process id."""
        return self._process.pid

    @property
    def attributes(self) -> list[Any]:
        """How the terminal treats what is typed."""
        return termios.tcgetattr(self._its)

    @property
    def screen(self) -> str:
        """The last picture that is whole, as text: each begins at the top, and fills the window as it is now.

        What is no picture, a line for instance, is there as it was written.
        """
        if _HOME not in self.written:
            return _CONTROL.sub("", self.written)
        pictures = [_CONTROL.sub("", each) for each in self.written[self._resized_at :].rsplit(_HOME, 2)]
        return next(filter(self._filled_by, reversed(pictures)), "")

    def _filled_by(self, picture: str) -> bool:
        columns, lines = self._size
        drawn = picture.splitlines()
        return len(drawn) == lines and len(drawn[-1]) == columns

    def send(self, number: signal.Signals) -> None:
        """Send a signal."""
        self._process.send_signal(number)

    def type(self, keys: str) -> None:
        """Press keys."""
        os.write(self._ours, keys.encode())

    def resize(self, columns: int, lines: int) -> None:
        """Change the size of the window."""
        self._size = columns, lines
        self._resized_at = len(self.written)
        fcntl.ioctl(self._ours, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def deafen(self) -> None:
        """Read nothing any more of what the command writes."""
        asyncio.get_running_loop().remove_reader(self._ours)

    async def shows(self, pattern: str, timeout_s: float = TIMEOUT_S) -> re.Match[str]:
        """Wait until the screen shows something that matches."""

        async def found() -> re.Match[str] | None:
            return re.search(pattern, self.screen)

        return await wait_until(found, timeout_s, f"the screen shows {pattern!r}")

    async def shows_no_more(self, pattern: str) -> None:
        """Wait until the screen shows nothing that matches."""

        async def gone() -> bool:
            return not re.search(pattern, self.screen)

        await wait_until(gone, what=f"the screen does not show {pattern!r}")

    async def ended(self) -> int:
        """Wait for the command's end and return its exit code."""
        async with asyncio.timeout(TIMEOUT_S):
            code = await self._process.wait()
        self._read()
        return code
