"""Which problems a process has, and a report of each when it begins and when it is over."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

from reactive_orch.core.problems import compared
from reactive_orch.model.reports import ProblemBegan, ProblemEnded

if TYPE_CHECKING:
    from collections.abc import Iterable

    from reactive_orch.model.problems import Key, Problem
    from reactive_orch.model.reports import Emit


class ProblemWatch:
    """The problems of all workers of a process; what several of them have together counts once."""

    def __init__(self, emit: Emit) -> None:
        """Start without any."""
        self._emit = emit
        self.standing: tuple[Problem, ...] = ()
        """Those there were when last looked."""
        self._since: dict[Key, float] = {}
        """When each of them was first seen, by the monotonic clock."""

    def look(self, found: Iterable[Problem]) -> None:
        """Take these for all that there are, and tell what has changed."""
        now = time.monotonic()
        before, self.standing = self.standing, tuple({each.key: each for each in found}.values())
        self._since = {each.key: self._since.get(each.key, now) for each in self.standing}
        began, ended = compared(before, self.standing)
        for problem in began:
            self._emit(ProblemBegan(problem))
        for problem in ended:
            self._emit(ProblemEnded(problem))

    def dated(self, problem: Problem) -> Problem:
        """Return a problem with its age: since it was first seen, unless it knows better. One not seen yet is new."""
        now = time.monotonic()
        return replace(problem, age_s=now - self._since.get(problem.key, now)) if problem.age_s is None else problem

    def forget(self, replica_set: str) -> None:
        """Say no more of a replica set whose worker has ended: what it knew of is not solved by that."""
        self.standing = tuple(each for each in self.standing if each.replica_set != replica_set)
