"""The table of health: what each page answers in each state."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from reactive_orch.core.health import (
    STALLED_AFTER_S,
    STALLED_TOO_LONG_S,
    STUCK_AFTER_S,
    Facts,
    Stall,
    assess,
)
from reactive_orch.core.problems import HELD_AFTER_S
from reactive_orch.model import WorkerState

SETTLED = Facts(state=WorkerState.SERVING, age_s=1.0, age_max_s=60.0, rebalancing_max_s=60.0, listens=True)
STOPPED = {"p": STUCK_AFTER_S + 1}
BRIEF = Stall("no progress on p", STALLED_AFTER_S)
STALLED = Stall("no progress on p", STALLED_AFTER_S + 2, "TooManyConnectionsError (53300)")
STALLED_LONG = Stall("no progress on p", STALLED_TOO_LONG_S + 1)
UNREGISTERED = Stall("not registered", 3600.0, "ConnectionRefusedError")


@pytest.mark.parametrize(
    ("facts", "live", "ready", "well", "reason"),
    [
        ({"state": WorkerState.STARTING, "listens": False}, 200, 503, 200, ""),
        ({"state": WorkerState.JOINING}, 200, 503, 200, ""),
        ({}, 200, 200, 200, ""),
        ({"state": WorkerState.STANDBY}, 200, 200, 200, ""),
        ({"state": WorkerState.REBALANCING, "rebalancing_s": 59.0}, 200, 200, 200, ""),
        ({"state": WorkerState.REBALANCING, "rebalancing_s": 61.0}, 200, 503, 503, "rebalancing for too long"),
        ({"rebalancing_s": 61.0}, 200, 200, 200, ""),
        ({"missed": True}, 200, 200, 200, "notifications do not arrive"),
        ({"listens": False}, 200, 503, 503, "membership connection lost"),
        ({"state": WorkerState.JOINING, "expelled": True}, 200, 503, 503, "removed by the others"),
        ({"state": WorkerState.UNAVAILABLE}, 200, 503, 503, "database unavailable"),
        ({"failing_s": {"p": 1.0}}, 200, 200, 200, "trying a failing event again: p"),
        ({"failing_s": STOPPED}, 200, 200, 503, "stopped by a failing event: p"),
        ({"failing_s": STOPPED, "resting": {"p": "suspended"}}, 200, 200, 200, "projection p is suspended"),
        ({"refused": frozenset({"b", "a"})}, 200, 200, 200, "not run here, recorded with another filter: a, b"),
        ({"refused": frozenset({"a"}), "idle": True}, 200, 503, 503, "nothing to run until a filter is accepted"),
        ({"unserved_s": {"a": 31.0, "b": 29.0}}, 200, 200, 200, "projection a is run by no worker"),
        ({"frontier_held_s": HELD_AFTER_S - 1}, 200, 200, 200, ""),
        ({"frontier_held_s": HELD_AFTER_S + 1}, 200, 200, 503, "the log cannot be read on"),
        ({"state": WorkerState.STOPPING}, 200, 503, 503, "draining"),
        ({"state": WorkerState.STOPPED}, 503, 503, 503, "stopped"),
        ({"age_s": 61.0}, 503, 503, 503, "has not looked"),
        # Registering waits for the database, which no restart brings back.
        ({"state": WorkerState.STARTING, "listens": False, "age_s": 3600.0}, 200, 503, 200, ""),
        (
            {"state": WorkerState.STARTING, "listens": False, "age_s": 3600.0, "stalls": (UNREGISTERED,)},
            *(200, 503, 503),
            "not registered for 3600 s: ConnectionRefusedError",
        ),
        ({"stalls": (BRIEF,)}, 200, 200, 200, ""),
        ({"stalls": (STALLED,)}, 200, 200, 200, "no progress on p for 12 s: TooManyConnectionsError (53300)"),
        ({"stalls": (STALLED_LONG,)}, 200, 200, 503, "no progress on p for 31 s"),
    ],
)
def test_the_pages(facts: dict[str, Any], live: int, ready: int, well: int, reason: str) -> None:
    judged = assess(replace(SETTLED, **facts))
    answers = [200 if answer else 503 for answer in (judged.live, judged.ready, judged.well)]
    assert answers == [live, ready, well]
    assert len(judged.reasons) == bool(reason)
    assert all(given.startswith(reason) for given in judged.reasons)
    assert judged.word == ("unhealthy" if well == 503 else "degraded" if reason else "ok")


def test_all_reasons_are_given() -> None:
    facts = replace(SETTLED, state=WorkerState.UNAVAILABLE, listens=False, missed=True, failing_s=STOPPED)
    assert assess(facts).reasons == (
        "database unavailable",
        "membership connection lost",
        "stopped by a failing event: p",
        "notifications do not arrive, polling works",
    )


def test_only_states_that_take_part_are_ready() -> None:
    ready = {state for state in WorkerState if assess(replace(SETTLED, state=state)).ready}
    assert ready == {WorkerState.REBALANCING, WorkerState.SERVING, WorkerState.STANDBY}
