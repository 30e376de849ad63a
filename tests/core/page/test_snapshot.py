"""What the page is given of what a look has shown."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from reactive_orch.core.overview import overview
from reactive_orch.core.page.snapshot import SLOTS, Sighted, slots, snapshot
from reactive_orch.core.problems import problems
from reactive_orch.model import MemberId
from reactive_orch.model.keys import Cause
from reactive_orch.model.membership import AdoptionRow, GenerationRow
from tests.core.test_overview import ACCOUNT, AT, DONE, HOLDER, LOG, PROJECTION, TOTALS, WORKER, rest, seen

if TYPE_CHECKING:
    from reactive_orch.model.overview import Seen

ROW = GenerationRow(
    3, "join", [1], [1], 4, f"00-{'a' * 32}-{'b' * 16}-01", 1, "own", AT, AT + timedelta(seconds=0.002), None
)
ADOPTION = AdoptionRow(1, "notify", AT + timedelta(seconds=0.004), None, None, AT + timedelta(seconds=0.01), 0, 4, 0)
CAUSE = Cause(
    "totals",
    "events",
    "KeyError",
    "'x'\n",
    "/app/shop.py:4",
    AT,
    AT,
    3,
    2,
    1,
    9,
    (0, 2),
)


def told(now: Seen, **more: Any) -> dict[str, Any]:
    shown = overview(now)
    values: dict[str, Any] = {
        "replica_sets": ["shop"],
        "rebalances": [(ROW, [ADOPTION])],
        "parked": {},
        "causes": [],
        "more_causes": 0,
    }
    return snapshot("shop", Sighted(overview=shown, **values | more), problems(shown))


def totals(*of: Any, **more: Any) -> dict[str, Any]:
    of_it: dict[str, Any] = told(seen(*of, **more))["projections"]["totals@1"]
    return of_it


def test_it_can_be_written_as_json() -> None:
    json.dumps(told(seen(), causes=[CAUSE]), allow_nan=False)


def test_a_partition_is_behind_by_its_share_of_what_is_settled() -> None:
    assert totals()["behind"] == [25, 50, 0, 0], "1,000 are settled, of four partitions"
    done = replace(WORKER, account=replace(ACCOUNT, projections={TOTALS: DONE}))
    assert totals(done)["behind"] == [0] * 4, "its owner has read what was saved seconds ago, and more"
    assert totals(replace(done, heartbeat_age_s=7.0))["behind"] == [25, 50, 0, 0], "but not if it is silent"
    assert totals(None, log=replace(LOG, holders=(HOLDER,)))["behind"] == [None] * 4


@pytest.mark.parametrize(
    ("worker", "state"),
    [
        (WORKER, "serving"),
        (replace(WORKER, heartbeat_age_s=7.0), "silent"),
        (replace(WORKER, stale=True), "stale"),
        (replace(WORKER, connected=False), "dead"),
        (replace(WORKER, account=None), "active"),
    ],
)
def test_a_worker_is_as_others_see_it_before_it_is_as_it_says(worker: Any, state: str) -> None:
    assert told(seen(worker))["workers"]["1"]["state"] == state


def test_progress_is_shown_of_what_has_far_to_go() -> None:
    assert totals()["done"] is None
    log, far = replace(LOG, head=100_000), replace(PROJECTION, saved=(10_000, 10_000, 30_000, 30_000))
    assert totals(None, far, log)["done"] == 0.2
    near = replace(PROJECTION, saved=(96_000,) * 4)
    assert totals(None, near, log)["done"] is None
    again = replace(PROJECTION, saved=(900, 800, 1_000, 1_000), replays_to=1_000)
    assert totals(projection=again)["done"] == 0.925


def test_how_a_projection_rests() -> None:
    paused = totals(projection=replace(PROJECTION, rest=rest("paused", "a reason")))
    assert (paused["state"], paused["reason"], paused["by"], paused["since"]) == (
        "paused",
        "a reason",
        "ann@vm",
        AT.isoformat(),
    )


def test_a_generation_has_its_phases_since_it_was_noticed() -> None:
    (generation,) = told(seen())["generations"].values()
    assert (generation["trace"], generation["notice_ms"], generation["settled_ms"]) == ("a" * 32, 2.0, None)
    assert [(phase["phase"], phase["from"], phase["to"]) for phase in generation["phases"]] == [
        ("decide", 0.0, 2.0),
        ("notice", 2.0, 4.0),
        ("acknowledge", 4.0, 10.0),
    ]
    newer = ROW._replace(number=4)
    overtaken = told(seen(), rebalances=[(ROW, []), (newer, [])])["generations"]
    assert [each["overtaken"] for each in overtaken.values()] == [True, False]


def test_commands_are_quoted_for_a_shell() -> None:
    hostile = Cause(*CAUSE[:0], "$(touch x); '", *CAUSE[1:])
    (cause,) = told(seen(), causes=[hostile])["failures"]
    assert cause["commands"]["retry"].endswith("""--projection '$(touch x); '"'"'' --all""")
    assert cause["at_line"] == "/app/shop.py:4"
    prepared = replace(HOLDER, pid=None, prepared="x'; DROP")
    held = told(seen(log=replace(LOG, holders=(prepared,))))["logs"]["events"]["held_by"][0]
    assert "x''; DROP" in held["command"]


def test_workers_are_told_apart() -> None:
    given = slots(map(MemberId, [1, 2, 1 + SLOTS, 2 + SLOTS]))
    assert given == {1: 0, 2: 1, 1 + SLOTS: 2, 2 + SLOTS: 3}
    many = slots(map(MemberId, range(1, 201)))
    assert len(many) == 200
    assert set(many.values()) == set(range(SLOTS)), "with more of them some share one"


def test_the_lag_is_as_workers_told_it() -> None:
    """Else it would go up and down with the age of their heartbeats, although all is handled at once."""
    since = replace(LOG, head=5_000)
    told_of = totals(log=since)
    assert (told_of["lag_events"], told_of["lag_s"]) == (50, 4.0)
    assert totals(None, log=since)["lag_events"] == 4_075, "of those who say nothing it is known where they saved"


def test_a_writer_at_work_is_nobody_to_be_ended() -> None:
    working, forgotten = replace(HOLDER, age_s=0.5), replace(HOLDER, age_s=1.5)
    log = told(seen(log=replace(LOG, holders=(forgotten, working))))["logs"]["events"]
    assert [each["age_s"] for each in log["held_by"]] == [1.5]


def test_problems_do_not_repeat_whose_page_it_is() -> None:
    (problem,) = told(seen(projection=replace(PROJECTION, rest=rest("paused"))))["problems"]
    assert problem["text"] == "projection totals is paused"
