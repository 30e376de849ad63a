"""Since when there are problems that do not know it themselves."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

from reactive_orch.core.problems import made
from reactive_orch.runtime.problem_watch import ProblemWatch

if TYPE_CHECKING:
    import pytest


def test_a_problem_is_as_old_as_it_was_seen_and_begins_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s, lost = 100.0, made("disconnected")
    monkeypatch.setattr(time, "monotonic", lambda: now_s)
    watch = ProblemWatch(lambda _: None)
    assert watch.dated(lost).age_s == 0.0
    watch.look([lost])
    now_s += 7.0
    watch.look([replace(lost, words="membership connection lost: OSError")])
    assert watch.dated(lost).age_s == 7.0
    assert watch.dated(replace(lost, age_s=3.0)).age_s == 3.0, "it knows better"
    watch.look([])
    assert watch.dated(lost).age_s == 0.0
