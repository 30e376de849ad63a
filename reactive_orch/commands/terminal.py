"""What commands write for people, and what they ask them.

A terminal gets colours, and tables that heed its width, by Rich, which is imported only then. All else, a pipe, a file,
a dumb terminal, one without Rich (the extra `cli`), gets plain text, each line whole. Rich gets text, never markup:
values of users may look like it.
"""

from __future__ import annotations

import sys
from datetime import UTC
from importlib.util import find_spec
from typing import TYPE_CHECKING, Self

from reactive_orch.errors import ConfigError
from reactive_orch.process.abandonable import abandonable

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from rich.console import Console

LEVELS = {"bad": "bold red", "warn": "yellow", "note": "cyan"}
"""Level of a problem → its style."""
HEADING, GOOD = "bold", "green"
UNITS = (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1))
"""Of times, and how many seconds each has."""


class Styled(str):
    """A line or a cell, and how a terminal shows it, in Rich's words."""

    __slots__ = ("style",)
    style: str

    def __new__(cls, text: str, style: str) -> Self:
        """Make a text with a style, which is lost with the first operation on it."""
        styled = super().__new__(cls, text)
        styled.style = style
        return styled


def show(lines: Iterable[str]) -> None:
    """Write lines to standard output; on a terminal in their styles."""
    lines = list(lines)
    console = _console()
    if console is None:
        print("\n".join(lines))
        return
    from rich.text import Text

    for line in lines:
        console.print(Text(line, _style(line)), soft_wrap=True)


def show_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Write rows of cells as columns under their heads; on a terminal that is too narrow, folded."""
    console = _console()
    if console is None:
        print(table(head, rows))
        return
    from rich.table import Table
    from rich.text import Text

    drawn = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style=HEADING)
    for name in head:
        drawn.add_column(name, overflow="fold")
    for row in rows:
        drawn.add_row(*(Text(cell, _style(cell)) for cell in row))
    console.print(drawn)


def _style(text: str) -> str:
    return text.style if isinstance(text, Styled) else ""


def _console() -> Console | None:
    """Return what draws on the terminal; None where there is none, or one that can show plain text only."""
    if not sys.stdout.isatty() or not can_draw():
        return None
    from rich.console import Console

    console = Console(highlight=False, markup=False, emoji=False)
    return None if console.is_dumb_terminal else console


def can_draw() -> bool:
    """Tell whether Rich is installed."""
    return find_spec("rich") is not None


def shown_time(at: datetime) -> str:
    """Return a time as people get it, and as `rewind --to` takes it: by UTC, as in the log, and it says so."""
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%SZ}"


def cut(text: str, width: int) -> str:
    """Return a text in at most so many characters."""
    return text if len(text) <= width else f"{text[: width - 1]}…"


def count(number: int, what: str) -> str:
    """Return a number with its noun."""
    return f"{number} {what}{'' if number == 1 else 's'}"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return rows of cells as columns under their heads."""
    lines = [head, *rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)


async def confirm(question: str) -> None:
    """Ask before something that cannot be taken back. Raises ConfigError for a no, and where nobody can be asked."""
    if sys.stdin is None or not sys.stdin.isatty():
        msg = f"{question} say so with --yes"
        raise ConfigError(msg)
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    if (await abandonable(sys.stdin.readline)).strip().lower() not in {"y", "yes"}:
        msg = "nothing was done"
        raise ConfigError(msg)
