"""What commands write for people, and what they ask them."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from reactive_orch.errors import ConfigError
from reactive_orch.process.abandonable import abandonable

if TYPE_CHECKING:
    from collections.abc import Sequence


def printable(text: str) -> str:
    """Return a text that holds values of events as a terminal may get it: what would steer it is escaped."""
    return "".join(c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in text)


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
