"""The terminal of `watch`: another screen than the shell's, without echo and cursor; as it was before, at the end."""

from __future__ import annotations

import contextlib
import os
import sys
import termios
import threading
from typing import TYPE_CHECKING, Any

import anyio
from rich.console import Console, Group
from rich.live import Live

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.text import Text

FALLBACK = os.terminal_size((80, 24))
"""For a terminal that does not say how large it is."""

_INPUT_FLAGS, _LOCAL_FLAGS = 0, 3


def is_terminal() -> bool:
    """Tell whether standard output is a terminal on which one can draw."""
    return sys.stdout.isatty() and not Console().is_dumb_terminal


class Terminal:
    """Where the picture is drawn, and where keys come from. What is left is as it was before."""

    def __init__(self) -> None:
        """Nothing is changed before something is drawn."""
        self._console = Console(file=sys.stdout, force_terminal=True, force_interactive=True, legacy_windows=False)
        self._live: Live | None = None
        self._taken = True
        """It may be drawn on."""
        self._keys: int | None = sys.stdin.fileno() if sys.stdin is not None and sys.stdin.isatty() else None
        self._before: list[Any] | None = None
        self._one_at_a_time = threading.Lock()

    @property
    def size(self) -> os.terminal_size:
        """Its columns and lines, as they are now."""
        with contextlib.suppress(OSError):
            size = os.get_terminal_size(sys.stdout.fileno())
            if size.columns and size.lines:
                return size
        return FALLBACK

    def draw(self, lines: Sequence[Text], size: os.terminal_size) -> None:
        """Show these lines, and nothing else, on the other screen. Keys come one by one and are not shown."""
        with self._one_at_a_time:
            if not self._taken:
                return
            self._hush()
            if self._live is None:
                self._live = Live(
                    console=self._console, screen=True, auto_refresh=False, redirect_stdout=False, redirect_stderr=False
                )
                self._live.start()
            self._console.size = size
            self._live.update(Group(*lines), refresh=True)

    def _hush(self) -> None:
        if self._keys is None:
            return
        now = termios.tcgetattr(self._keys)
        if self._before is None:
            self._before = termios.tcgetattr(self._keys)
        now[_LOCAL_FLAGS] &= ~(termios.ECHO | termios.ICANON)
        now[_INPUT_FLAGS] &= ~termios.IXON  # Ctrl-S would hold up whoever draws
        termios.tcsetattr(self._keys, termios.TCSANOW, now)

    def leave(self) -> None:
        """Give the terminal back; nothing is drawn before it is taken again."""
        with self._one_at_a_time:
            live, self._live, self._taken = self._live, None, False
            try:
                if live is not None:
                    live.stop()
            finally:
                if self._before is not None and self._keys is not None:
                    termios.tcsetattr(self._keys, termios.TCSANOW, self._before)
                self._before = None

    def take(self) -> None:
        """Draw on it again."""
        self._taken = True

    async def until_q(self) -> None:
        """Wait until somebody types a q, or has closed the terminal; for ever without a keyboard."""
        if self._keys is None:
            await anyio.sleep_forever()
            return
        typed = b"?"
        while typed and b"q" not in typed.lower():
            await anyio.wait_readable(self._keys)
            typed = os.read(self._keys, 1024)
