"""What the page remembers from look to look."""

from __future__ import annotations

from typing import Any

from reactive_orch.core.page.story import GONE_S, HISTORY_S, INCIDENTS_MOST, Story, grown


def page(owners: list[int], number: int = 1, problems: tuple[str, ...] = (), at: str = "12:00", **more: Any) -> Any:
    workers = {
        str(owner): {"id": owner, "state": "serving", "per_s": 2.0, "partitions": 1} for owner in {*owners} - {0}
    }
    return {
        "at": at,
        "workers": workers,
        "projections": {"p@1": {"owners": owners, "lag_s": 1.0, "per_s": 4.0}},
        "generations": {str(each): {} for each in range(1, number + 1)},
        "problems": [{"code": code, "level": "warn", "text": code, "since": None} for code in problems],
        **more,
    }


def test_a_partition_has_moved_in_the_generation_in_which_its_owner_was_another_one() -> None:
    story = Story()
    assert story.told(page([1, 2], 10), 0)["projections"]["p@1"]["moved"] == [0, 0], (
        "of what was before nothing is known"
    )
    assert story.told(page([1, 1], 11), 1)["projections"]["p@1"]["moved"] == [0, 11]
    assert story.told(page([3, 1], 12), 2)["projections"]["p@1"]["moved"] == [12, 11]
    assert story.told(page([3, 1, 1], 13), 3)["projections"]["p@1"]["moved"] == [0, 0, 0], (
        "another number of partitions"
    )


def test_who_has_gone_is_shown_for_a_while() -> None:
    story = Story()
    story.told(page([1, 2]), 0)
    gone = story.told(page([1, 1]), 1)["workers"]["2"]
    assert (gone["state"], gone["partitions"], gone["per_s"]) == ("dead", 0, None)
    assert "2" in story.told(page([1, 1]), GONE_S)["workers"]
    assert "2" not in story.told(page([1, 1]), 1 + GONE_S)["workers"]
    assert story.told(page([1, 2]), 9)["workers"]["2"]["state"] == "serving", "back"


def test_incidents_are_problems_with_their_end() -> None:
    story = Story()
    assert story.told(page([1]), 0)["incidents"] == []
    (began,) = story.told(page([1], problems=("paused",), at="12:01"), 1)["incidents"]
    assert (began["from"], began["to"]) == ("12:01", None)
    (ended,) = story.told(page([1], at="12:02"), 2)["incidents"]
    assert (ended["from"], ended["to"]) == ("12:01", "12:02")
    assert len(story.told(page([1], problems=("paused",), at="12:03"), 3)["incidents"]) == 2, "once more"
    for n in range(2 * INCIDENTS_MOST):
        told = story.told(page([1], problems=(f"code {n}",)), n)
    assert len(told["incidents"]) == INCIDENTS_MOST


def test_the_history_has_a_column_a_second() -> None:
    story = Story()
    story.told(page([1]), 100.0)
    story.told(page([1]), 103.9)
    history = story.history("12:00")
    assert history["rate"]["1"] == [None] * (HISTORY_S - 4) + [2.0] * 4
    assert history["lag"]["p@1"][-1] == 1.0
    assert history["handled"]["p@1"][-1] == 4.0
    story.told(page([2]), 103.95)
    assert "2" not in story.history("12:00")["rate"], "no whole second of it yet"


def test_what_is_not_known_any_more_is_forgotten() -> None:
    past: dict[str, list[float | None]] = {"a": [1.0] * HISTORY_S}
    assert grown(past, {}, HISTORY_S - 1)["a"] == [1.0] + [None] * (HISTORY_S - 1)
    assert grown(past, {}, HISTORY_S) == {}


def test_of_a_long_silence_only_the_end_is_known() -> None:
    past: dict[str, list[float | None]] = {"a": [1.0] * HISTORY_S}
    assert grown(past, {"a": 2.0}, 20)["a"][-21:] == [1.0, *[None] * 15, *[2.0] * 5]
