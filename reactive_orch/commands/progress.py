"""How far a long command is, on standard error: a bar on a terminal, a line now and then elsewhere.

Nothing at all of what is soon done. Rich is loaded when there is a bar to draw; without it there are lines.
"""

from __future__ import annotations

import contextlib
import sys
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Protocol

from reactive_orch.commands.terminal import can_draw
from reactive_orch.core.rate import LEAST_PER_S, Rate
from reactive_orch.model.names import printable
from reactive_orch.process.streams import say

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from rich.console import Console
    from rich.table import Table

LINES_AFTER_S, LINES_EVERY_S = 5.0, 10.0
"""What somebody's timer runs should have no word to say when all is well and it is short."""
BAR_AFTER_S, BAR_EVERY_S = 1.0, 0.1
BAR_WIDTH, BAR_WIDTH_LEAST = 40, 8
"""Characters."""


class _Display(Protocol):
    """Where it is shown."""

    after_s: float
    every_s: float

    def show(self, doing: str, rest: Sequence[str], share: float | None) -> None:
        """Show what is being done, what there is to say of it, and which share of it is done."""
        ...

    def close(self) -> None:
        """Show nothing any more."""
        ...


class Progress:
    """What a command tells of how far it is."""

    def __init__(self, what: str, display: Callable[[], _Display] | None) -> None:
        """Begin. `what`: the command. The display is made when there may be something to show; without, nothing is."""
        self._what, self._make_display = what, display
        self._display: _Display | None = None
        self._begun = self._since = time.monotonic()
        self._shown = -LINES_EVERY_S
        self._doing, self._counted = "", True
        self._rate = Rate()

    def at(self, doing: str, done: int, total: int | None = None, unit: str = "events") -> None:
        """Say how far it is with something. To be called often: most calls show nothing."""
        now = time.monotonic()
        if self._begin(doing, now, counted=True):
            self._rate.seen(done, now)
        if self._due(now):
            share = done / total if total else None
            self._show(now, doing, amounts(done, total, unit, self._rate.seen(done, now)), share)

    def still(self, doing: str, why: str = "") -> None:
        """Say that it still does something of which nobody knows how far it is, and why."""
        now = time.monotonic()
        self._begin(doing, now, counted=False)
        if self._due(now):
            lasting = f"{timedelta(seconds=round(now - self._since))} so far"
            self._show(now, doing, [lasting, *([printable(why)] if why else [])], None)

    def go_on(self) -> None:
        """Say again what it does, if that was said by `still`: so that time is seen to pass."""
        if not self._counted:
            self.still(self._doing)

    def close(self) -> None:
        """Show nothing any more."""
        if self._display is not None:
            self._display.close()

    def _begin(self, doing: str, now: float, *, counted: bool) -> bool:
        new, self._counted = doing != self._doing, counted
        if new:
            self._doing, self._since, self._rate = doing, now, Rate()
        return new

    def _due(self, now: float) -> bool:
        if self._make_display is None or now - self._begun < BAR_AFTER_S:
            return False
        display = self._display = self._display or self._make_display()
        return now - self._begun >= display.after_s and now - self._shown >= display.every_s

    def _show(self, now: float, doing: str, rest: Sequence[str], share: float | None) -> None:
        assert self._display is not None, "it is due"
        self._shown = now
        self._display.show(f"{self._what}: {doing}", rest, share)


def _joined(share: float | None, rest: Sequence[str]) -> str:
    return ", ".join(rest if share is None else [f"{share:.0%}", *rest])


def amounts(done: int, total: int | None, unit: str, per_s: float) -> list[str]:
    """Return how much is done, how quickly, and how long the rest will take."""
    if unit == "bytes":
        return amounts(done // 1_000_000, total and max(total // 1_000_000, 1), "MB", per_s / 1_000_000)
    said = [f"{done:,} of {total:,} {unit}" if total else f"{done:,} {unit}"]
    if per_s >= LEAST_PER_S:
        said.append(f"{per_s:,.{0 if per_s >= 1 else 1}f} {unit}/s")
    if per_s >= LEAST_PER_S and total:
        said.append(f"{timedelta(seconds=round(max(total - done, 0) / per_s))} left")
    return said


class _Lines:
    """A line now and then, for files, pipes and terminals that cannot draw."""

    after_s, every_s = LINES_AFTER_S, LINES_EVERY_S

    def show(self, doing: str, rest: Sequence[str], share: float | None) -> None:
        say(f"{doing}: {_joined(share, rest)}")

    def close(self) -> None:
        pass


class _Bar:
    """Rich's bar. It draws when it is told to, with no thread of its own; what others write comes above it."""

    after_s, every_s = BAR_AFTER_S, BAR_EVERY_S

    def __init__(self, console: Console) -> None:
        from rich.live import Live

        self._live = Live(console=console, auto_refresh=False, transient=True)

    def show(self, doing: str, rest: Sequence[str], share: float | None) -> None:
        self._live.start()
        self._live.update(line(doing, rest, share, self._live.console.width), refresh=True)

    def close(self) -> None:
        self._live.stop()


def line(doing: str, rest: Sequence[str], share: float | None, width: int) -> Table:
    """Return the bar between the words, whose first tell what the percentage does: where there is no room they go."""
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    words = _joined(share, rest)
    if share is not None and width - len(doing) - len(words) - 2 < BAR_WIDTH_LEAST:
        words = _joined(share, rest[1:])
    room = min(max(width - len(doing) - len(words) - 2, BAR_WIDTH_LEAST), BAR_WIDTH)
    line = Table.grid(padding=(0, 1))
    for _ in range(3):
        line.add_column(no_wrap=True, overflow="ellipsis")
    line.add_row(Text(doing), ProgressBar(1.0, share or 0.0, width=room, pulse=share is None), Text(words))
    return line


def _display() -> _Display:
    if not sys.stderr.isatty() or not can_draw():
        return _Lines()
    from rich.console import Console

    class BesideOthers(Console):
        """It leaves the cursor alone: a process that is ended at once could not bring it back."""

        def show_cursor(self, show: bool = True) -> bool:  # noqa: FBT001, FBT002, ARG002 - Rich's
            return False

    console = BesideOthers(stderr=True, soft_wrap=True)
    return _Lines() if console.is_dumb_terminal else _Bar(console)


@contextlib.contextmanager
def progress(what: str, *, silent: bool = False) -> Iterator[Progress]:
    """Show how far a command is, until the block ends. `silent`: show nothing."""
    shown = Progress(what, None if silent else _display)
    try:
        yield shown
    finally:
        shown.close()
