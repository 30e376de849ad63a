"""How a problem is shown to people, whichever command has found it."""

from __future__ import annotations

from datetime import UTC, timedelta
from typing import TYPE_CHECKING

from reactive_orch.commands.terminal import LEVELS, Styled, printable, shown_time

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from reactive_orch.model.problems import Problem


def problem_lines(problem: Problem, at: datetime) -> Iterator[str]:
    """Yield a line, and one with the command that helps, if there is one. `at`: when it was looked at."""
    began = "" if problem.age_s is None else f"since {shown_time(_before(at, problem.age_s))}"
    about = ", ".join(filter(None, (began, problem.who)))
    line = f"{problem.level}: {one_line(problem.text)}{f' ({one_line(about)})' if about else ''}"
    yield Styled(line, LEVELS[problem.level])
    if problem.command:
        yield f"    {one_line(problem.command)}"


def since(at: datetime, age_s: float) -> str:
    """Return when something began that is so many seconds old, for programs."""
    return _before(at, age_s).isoformat()


def _before(at: datetime, age_s: float) -> datetime:
    return (at - timedelta(seconds=age_s)).astimezone(UTC)


def one_line(text: str) -> str:
    """Return a text in one line that steers no terminal."""
    return printable(" ".join(text.split()))
