"""Figures: medians, spread, tables, goals."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


@dataclass(frozen=True, slots=True)
class Goal:
    """One row of the table of goals."""

    figure: str
    goal: str
    measured: str
    met: bool


@dataclass(slots=True)
class Section:
    """What a measurement has to say."""

    title: str
    text: str
    goals: list[Goal] = field(default_factory=list)


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value below which this share of the values lies, by the nearest rank."""
    ordered = sorted(values)
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)]


def median(values: Sequence[float]) -> float:
    """Return the median."""
    return statistics.median(values)


def spread(values: Sequence[float], digits: int = 2) -> str:
    """Return `median (least–greatest)`."""
    if len(values) == 1:
        return f"{values[0]:,.{digits}f}"
    return f"{median(values):,.{digits}f} ({min(values):,.{digits}f}–{max(values):,.{digits}f})"


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a Markdown table."""
    lines = [_row(head), "|" + "---|" * len(head), *(_row([str(cell) for cell in row]) for row in rows)]
    return "\n".join(lines)


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def goals_table(goals: Iterable[Goal]) -> str:
    """Return the table of goals."""
    return table(
        ["figure", "goal", "measured: median (least–greatest)", ""],
        [(g.figure, g.goal, g.measured, "met" if g.met else "**missed**") for g in goals],
    )
