"""A stopwatch counts while its blocks run, and nothing between them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from reactive_orch.runtime.stopwatch import Stopwatch

if TYPE_CHECKING:
    import pytest


def test_it_counts_while_a_block_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 10.0
    monkeypatch.setattr(time, "monotonic", lambda: now_s)
    watch = Stopwatch()
    with watch.running():
        now_s = 12.0
        assert watch.seconds == 2.0, "the block that runs, too"
    now_s = 20.0
    assert watch.seconds == 2.0
    with watch.running():
        now_s = 21.0
    assert watch.seconds == 3.0
