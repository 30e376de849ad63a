"""How a problem is shown to people, whichever command has found it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reactive_orch.commands.terminal import LEVELS, Styled, shown_time
from reactive_orch.core.overview_json import begun
from reactive_orch.core.remedies import PSQL
from reactive_orch.model.names import printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    from reactive_orch.model.problems import Problem

NO_PROBLEMS = "no problems"


def lines_of(found: Sequence[Problem], at: datetime, given: str | None) -> Iterator[str]:
    """Yield the lines of all, each with the command that helps. `given`: the address, where an option said it."""
    for problem in found:
        yield from _lines(problem, at)
    commands = [problem.command for problem in found if problem.command]
    if given is not None and commands:
        yield same_address(psql=any(PSQL in command for command in commands))


def same_address(*, psql: bool = False) -> str:
    """Return the line below commands where an option said the address: not repeated, since it may hold a password."""
    return f"    (each of these with the same --database-url{'; psql has it from DATABASE_URL' if psql else ''})"


def _lines(problem: Problem, at: datetime) -> Iterator[str]:
    began = "" if problem.age_s is None else f"since {shown_time(begun(at, problem.age_s))}"
    about = ", ".join(filter(None, (began, problem.who)))
    line = f"{problem.level}: {one_line(problem.text)}{f' ({one_line(about)})' if about else ''}"
    yield Styled(line, LEVELS[problem.level])
    if problem.command:
        yield f"    {one_line(problem.command)}"


def one_line(text: str) -> str:
    """Return a text in one line that steers no terminal."""
    return printable(" ".join(text.split()))
