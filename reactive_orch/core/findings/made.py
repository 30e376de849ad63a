"""How a finding is made."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reactive_orch.model.problems import Problem

if TYPE_CHECKING:
    from reactive_orch.model.problems import Level


def finding(  # noqa: PLR0913 - its columns
    level: Level, code: str, text: str, *, age_s: float | None = None, who: str = "", command: str = ""
) -> Problem:
    """Return one, of which only level, code and text must be said."""
    return Problem(level=level, code=code, words=text, age_s=age_s, who=who, command=command)
