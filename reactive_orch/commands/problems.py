"""How a problem is shown to people, whichever command has found it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reactive_orch.commands.terminal import LEVELS, Styled, printable, shown_time
from reactive_orch.core.overview_json import begun

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from reactive_orch.model.problems import Problem


def problem_lines(problem: Problem, at: datetime) -> Iterator[str]:
    """Yield a line, and one with the command that helps, if there is one. `at`: when it was looked at."""
    began = "" if problem.age_s is None else f"since {shown_time(begun(at, problem.age_s))}"
    about = ", ".join(filter(None, (began, problem.who)))
    line = f"{problem.level}: {one_line(problem.text)}{f' ({one_line(about)})' if about else ''}"
    yield Styled(line, LEVELS[problem.level])
    if problem.command:
        yield f"    {one_line(problem.command)}"


def one_line(text: str) -> str:
    """Return a text in one line that steers no terminal."""
    return printable(" ".join(text.split()))
