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
    Held,
    Stall,
    assess,
    own_problems,
)
from reactive_orch.core.problems import HELD_AFTER_S, compared
from reactive_orch.model import OWN_LOG, Subscription, WorkerState
from reactive_orch.model.membership import Resting
from reactive_orch.model.reports import Subject
from tests.core.test_overview import ACCOUNT, HOLDER, LOG, PROJECTION, STILL, TOTALS, WORKER, found

SETTLED = Facts(
    replica_set="shop",
    generation=3,
    state=WorkerState.SERVING,
    age_s=1.0,
    age_max_s=60.0,
    rebalancing_max_s=60.0,
    listens=True,
)
P, A, B = (Subscription(name, OWN_LOG) for name in "pab")
STOPPED = {P: STUCK_AFTER_S + 1}
OF_P, OF_SET = Subject("shop", *P), Subject("shop", "", "")
BRIEF = Stall(OF_P, STALLED_AFTER_S)
STALLED = Stall(OF_P, STALLED_AFTER_S + 2, "TooManyConnectionsError (53300)")
STALLED_LONG = Stall(OF_P, STALLED_TOO_LONG_S + 1)
UNREGISTERED = Stall(OF_SET, 3600.0, "ConnectionRefusedError", "not registered")


@pytest.mark.parametrize(
    ("facts", "live", "ready", "well", "reason"),
    [
        ({"state": WorkerState.STARTING, "listens": False}, 200, 503, 200, ""),
        ({"state": WorkerState.JOINING}, 200, 503, 200, ""),
        ({}, 200, 200, 200, ""),
        ({"state": WorkerState.STANDBY}, 200, 200, 200, ""),
        ({"state": WorkerState.REBALANCING, "rebalancing_s": 59.0}, 200, 200, 200, ""),
        ({"state": WorkerState.REBALANCING, "rebalancing_s": 61.0}, 200, 503, 503, "generation 3 is not settled yet"),
        ({"rebalancing_s": 61.0}, 200, 200, 200, ""),
        ({"missed": frozenset({OWN_LOG})}, 200, 200, 200, "notifications do not arrive"),
        ({"unrung": frozenset({OWN_LOG})}, 200, 200, 200, "writers do not ring"),
        ({"listens": False}, 200, 503, 503, "membership connection lost"),
        ({"state": WorkerState.JOINING, "expelled": True}, 200, 503, 503, "removed by the others"),
        ({"state": WorkerState.UNAVAILABLE}, 200, 503, 503, "database unavailable"),
        ({"failing_s": {P: 1.0}}, 200, 200, 200, "projection p tries a failing event again"),
        ({"failing_s": STOPPED}, 200, 200, 503, "projection p tries a failing event again"),
        (
            {"failing_s": STOPPED, "resting": {P: Resting("suspended", "all fail")}},
            200,
            200,
            200,
            "projection p is suspended: all fail",
        ),
        ({"refused": frozenset({A})}, 200, 200, 200, "projection a is recorded with another filter"),
        ({"away": frozenset({A})}, 200, 200, 200, "projection a is not run here for a while"),
        ({"one_at_a_time": frozenset({A})}, 200, 200, 200, "projection a: handlers deadlock"),
        ({"failing_keys": {A: 2, B: 0}}, 200, 200, 200, "projection a: 2 keys wait behind a failed event"),
        ({"unserved_s": {A: 31.0, B: 29.0}}, 200, 200, 200, "projection a is run by no worker"),
        ({"held": {OWN_LOG: Held(HELD_AFTER_S - 1)}}, 200, 200, 200, ""),
        ({"held": {OWN_LOG: Held(HELD_AFTER_S + 1)}}, 200, 200, 503, "the log cannot be read on"),
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
        (
            {"stalls": (STALLED,)},
            200,
            200,
            200,
            "no progress on projection p: TooManyConnectionsError (53300)",
        ),
        ({"stalls": (STALLED_LONG,)}, 200, 200, 503, "no progress on projection p"),
    ],
)
def test_the_pages(facts: dict[str, Any], live: int, ready: int, well: int, reason: str) -> None:
    judged = assess(replace(SETTLED, **facts))
    answers = [200 if answer else 503 for answer in (judged.live, judged.ready, judged.well)]
    assert answers == [live, ready, well]
    assert len(judged.reasons) == bool(reason)
    assert all(given.removeprefix("replica set shop: ").startswith(reason) for given in judged.reasons)
    assert judged.word == ("unhealthy" if well == 503 else "degraded" if reason else "ok")


def test_all_reasons_are_given() -> None:
    facts = replace(
        SETTLED,
        state=WorkerState.UNAVAILABLE,
        listens=False,
        unreachable_by="AdminShutdownError (57P01)",
        missed=frozenset({OWN_LOG}),
        failing_s=STOPPED,
    )
    assert assess(facts).reasons == (
        "membership connection lost: AdminShutdownError (57P01)",
        "replica set shop: database unavailable: AdminShutdownError (57P01)",
        "replica set shop: projection p tries a failing event again",
        "notifications do not arrive, polling works",
    )


def test_a_worker_with_nothing_to_run_is_not_ready() -> None:
    judged = assess(replace(SETTLED, refused=frozenset({B, A}), idle=True))
    assert (judged.ready, [each.code for each in judged.problems]) == (False, ["nothing_to_run", "refused", "refused"])
    assert [each.projection for each in judged.problems] == ["", "a", "b"]


def test_a_problem_has_the_words_and_the_command_that_status_has() -> None:
    (own,) = own_problems(replace(SETTLED, failing_keys={TOTALS: 1}))
    (told,) = found(projection=replace(PROJECTION, failing_keys=1, parked_keys=1))
    assert own == replace(told, age_s=None)


def test_what_stands_still_is_told_in_the_words_of_status() -> None:
    """Behind them each says what it knows more: the error, or how many events wait."""
    (own,) = own_problems(replace(SETTLED, stalls=(Stall(Subject("shop", *TOTALS), 31.0),)))
    (told,) = found(replace(WORKER, account=replace(ACCOUNT, projections={TOTALS: STILL})))
    assert told.text.startswith(f"{own.text}: ")
    assert own.key == told.key


def test_who_holds_the_log_is_told_with_what_ends_it() -> None:
    (own,) = own_problems(replace(SETTLED, held={OWN_LOG: Held(HOLDER.age_s, [HOLDER])}))
    (told,) = found(log=replace(LOG, holders=(HOLDER,)))
    assert own == told
    assert own.command.endswith("pg_terminate_backend(7)'")


def test_what_has_begun_and_ended_is_told_once() -> None:
    before = own_problems(replace(SETTLED, stalls=(STALLED,), failing_keys={P: 1}))
    now = own_problems(replace(SETTLED, stalls=(STALLED_LONG,), refused=frozenset({A})))
    began, ended = compared(before, now)
    assert ([each.code for each in began], [each.code for each in ended]) == (["refused"], ["keys_wait"])


def test_only_states_that_take_part_are_ready() -> None:
    ready = {state for state in WorkerState if assess(replace(SETTLED, state=state)).ready}
    assert ready == {WorkerState.REBALANCING, WorkerState.SERVING, WorkerState.STANDBY}
