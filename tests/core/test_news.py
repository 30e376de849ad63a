"""What is said of a change, and that nothing is said without one."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from reactive_orch.core.news import news, summary
from reactive_orch.core.overview import overview
from reactive_orch.model import MemberId
from reactive_orch.model.overview import ConnectionsSeen
from tests.core.test_overview import ACCOUNT, GENERATION, PROJECTION, STILL, TOTALS, WORKER, rest, seen

if TYPE_CHECKING:
    from reactive_orch.model.overview import Overview

WELL = overview(seen())
JOINED = "replica set shop: generation 3: join of 1, 4 partitions moved, settled in 12 ms"


def with_(*of: Any, **more: Any) -> Overview:
    return overview(seen(*of, **more))


def test_at_first_all_is_new() -> None:
    assert [*news(None, WELL)] == [JOINED, "replica set shop: worker 1: serving (vm:12:a1b2c3)"]
    assert [*news(None, overview(replace(seen(None, PROJECTION), generations={}, projections=[])))] == []


def test_without_a_change_there_is_nothing_to_say() -> None:
    older = replace(WORKER, heartbeat_age_s=2.0)
    assert [*news(WELL, WELL)] == [*news(WELL, with_(older))] == []


def test_a_problem_is_told_once_and_when_it_is_over() -> None:
    halted = with_(projection=replace(PROJECTION, rest=rest("halted", "a full disk")))
    command = "python -m reactive_orch resume --replica-set shop --projection totals"
    text = "replica set shop: projection totals is halted: a full disk"
    assert [*news(WELL, halted)] == [f"bad: {text} (ann@vm): {command}"]
    assert [*news(halted, halted)] == []
    assert [*news(halted, WELL)] == [f"over: {text}"]


def test_numbers_that_change_while_a_problem_lasts_are_not_told() -> None:
    still = replace(WORKER, account=replace(ACCOUNT, projections={TOTALS: STILL}))
    more = replace(WORKER, account=replace(ACCOUNT, projections={TOTALS: STILL._replace(behind=800)}))
    text = "no progress on projection totals: events wait: at most 50"
    assert [line for line in news(WELL, with_(still)) if text in line]
    assert [*news(with_(still), with_(more))] == []
    keys = [with_(projection=replace(PROJECTION, failing_keys=count, failing_s=9.0)) for count in (1, 5)]
    assert len([*news(WELL, keys[0])]) == 1
    assert [*news(*keys)] == []


def test_limits_of_connections_are_told_apart() -> None:
    of_server = ConnectionsSeen(of="server", name="", used=97, most=97, reserved=3)
    of_role = ConnectionsSeen(of="role", name="worker", used=8, most=8, reserved=0)
    both = overview(replace(seen(), connections=[of_server, of_role]))
    less = overview(replace(seen(), connections=[replace(of_server, used=98)]))
    assert sorted(line[:16] for line in news(WELL, both)) == ["bad: 97 of the 9", "bad: role worker"]
    assert [*news(both, less)] == ["over: role worker has 8 of the 8 connections that its CONNECTION LIMIT allows"]


def test_every_generation_since_is_told_and_when_it_is_settled() -> None:
    four = replace(GENERATION, number=4, reason="death", subjects=(2,), complete_s=None, age_s=2.0)
    five = replace(GENERATION, number=5, reason="leave", subjects=(3,))
    missed = overview(replace(seen(generation=five), before={"shop": (four, GENERATION)}))
    assert [*news(WELL, missed)] == [
        "replica set shop: generation 4: death of 2, 4 partitions moved, overtaken by the next",
        "replica set shop: generation 5: leave of 3, 4 partitions moved, settled in 12 ms",
    ]
    assert [*news(WELL, with_(generation=four))] == [
        "replica set shop: generation 4: death of 2, 4 partitions moved, not settled yet"
    ]
    settled = with_(generation=replace(four, complete_s=0.5))
    assert [*news(with_(generation=four), settled)] == [
        "replica set shop: generation 4: death of 2, 4 partitions moved, settled in 500 ms"
    ]


def test_workers_come_change_and_go() -> None:
    second = replace(WORKER, id=MemberId(2), name="vm:13:d4e5f6")
    both = overview(replace(seen(), workers=[WORKER, second]))
    cut_off = overview(replace(seen(), workers=[WORKER, replace(second, connected=False)]))
    assert [*news(WELL, both)] == ["replica set shop: worker 2: serving (vm:13:d4e5f6)"]
    assert [*news(both, cut_off)] == ["replica set shop: worker 2: not connected"]
    assert [*news(cut_off, WELL)] == ["replica set shop: worker 2: gone"]


def test_a_replica_set_is_removed() -> None:
    nothing = overview(replace(seen(None), generations={}, projections=[]))
    assert [*news(WELL, nothing)] == ["replica set shop: removed"]
    assert [*summary(nothing)] == ["no replica set has been seen yet"]


def test_the_summary_has_a_line_for_each_replica_set() -> None:
    line = "replica set shop: generation 3, workers 1; totals: events wait 50, 120.0 events/s"
    assert [*summary(WELL)] == [line]
    paused = with_(None, replace(PROJECTION, rest=rest("paused")))
    assert [*summary(paused)] == [
        "replica set shop: generation 3, workers 0; totals: paused, events wait 75, 0.0 events/s"
    ]
