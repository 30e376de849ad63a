"""The picture of `watch` at fixed sizes, as text; and what must hold at every size."""

from __future__ import annotations

import io
import re
import time
from dataclasses import replace
from datetime import timedelta
from functools import cache
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console, Group

from reactive_orch.commands.watch_picture import Shown, lasting, number, picture
from reactive_orch.core.badges import Badges
from reactive_orch.core.lags import Lags
from reactive_orch.core.overview import overview
from reactive_orch.core.problems import problems
from reactive_orch.model import OWN_LOG, MemberId, Subscription
from reactive_orch.model.account import LogAccount, ProjectionAccount
from reactive_orch.model.overview import Seen
from tests.core.test_overview import ACCOUNT, AT, GENERATION, HOLDER, LOG, PROJECTION, WORKER, rest

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rich.text import Text

    from reactive_orch.model.overview import ProjectionSeen, WorkerSeen

EVIL = "[bold red]boom[/] \x1b[2J\u202e :smile:\nnext"


@pytest.fixture(autouse=True)
def utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def worker(replica_set: str, id_: int, held: int, names: list[str], waiting: int) -> WorkerSeen:
    share = ProjectionAccount(held, waiting * held, 2.0 * bool(waiting), 40.0)
    account = replace(
        ACCOUNT,
        logs={OWN_LOG: LogAccount(5_000, 62.5)},
        projections={Subscription(name, OWN_LOG): share for name in names},
    )
    return replace(
        WORKER, id=MemberId(id_), replica_set=replica_set, name=f"web-{id_}:{400 + id_}:a1b2c3", account=account
    )


def shares(workers: list[int], partitions: int) -> tuple[MemberId, ...]:
    return tuple(MemberId(workers[each * len(workers) // partitions]) for each in range(partitions) if workers)


def shown(  # noqa: PLR0913 - what a picture depends on
    workers: int,
    names: list[str],
    partitions: int = 64,
    sets: int = 1,
    *,
    changed: dict[str, Any] | None = None,
    seconds: Sequence[int] = range(0, 121, 2),
) -> Shown:
    """Return what is seen after two minutes in which more and more events waited."""
    ids = {f"shop{n or ''}": [100 * n + each + 1 for each in range(workers)] for n in range(sets)}
    lags, badges = Lags(), {name: Badges() for name in ids}
    projections: list[ProjectionSeen] = [
        replace(
            PROJECTION,
            replica_set=name,
            subscription=Subscription(projection, OWN_LOG),
            saved=(4_000,) * partitions,
            **{"owners": shares(own, partitions), **(changed or {})},
        )
        for name, own in ids.items()
        for projection in names
    ]
    before = [replace(GENERATION, number=2, reason="death", subjects=(9,), age_s=4_000, complete_s=0.4)]
    for second in seconds:
        seen = Seen(
            at=AT + timedelta(seconds=second),
            logs=[replace(LOG, head=5_000, partitions=partitions)],
            generations=dict.fromkeys(ids, GENERATION),
            before=dict.fromkeys(ids, before),
            workers=[
                worker(name, each, partitions // workers or 1, names, second)
                for name, own in ids.items()
                for each in own
            ],
            projections=projections,
        )
        lags.add(overview(seen))
    now = overview(seen)
    for each in now.replica_sets:
        badges[each.name].give(one.seen.id for one in each.workers)
    return Shown(
        where="postgresql://shop@db/shop",
        overview=now,
        problems=problems(now),
        badges={name: each.of for name, each in badges.items()},
        lags=lags,
    )


def text(lines: list[Text]) -> str:
    return "\n".join(line.plain.rstrip() for line in lines)


ALL_IS_WELL = """\
reactive_orch  postgresql://shop@db/shop                       12:02:00Z  q ends
no problems
log events  last position 5000, settled 5000, 62.5 events/s, 64 partitions
── replica set shop ────────────────────────────────────────────────────────────
generation 3: join of 1, 4 partitions moved, settled in 12 ms, 50 s ago
generation 2: death of 9, 4 partitions moved, settled in 400 ms, 1 h ago
worker                state         partitions heartbeat     up
A 1 web-1:401:a1b2c3  serving               44       0 s  1 min
B 2 web-2:402:a1b2c3  serving               42       0 s  1 min
C 3 web-3:403:a1b2c3  serving               42       0 s  1 min
projection state     waiting oldest events/s   left failing last 2 min
mails      running       120    2 s    120.0    2 s       0 ▂▂▂▃▃▃▄▄▄▅▅▅▆▆▆▇▇███
  AAAAAAAAAAAAAAAAAAAAAABBBBBBBBBBBBBBBBBBBBBCCCCCCCCCCCCCCCCCCCCC
orders     running       120    2 s    120.0    2 s       0 ▂▂▂▃▃▃▄▄▄▅▅▅▆▆▆▇▇███
  AAAAAAAAAAAAAAAAAAAAAABBBBBBBBBBBBBBBBBBBBBCCCCCCCCCCCCCCCCCCCCC"""


def test_all_is_well() -> None:
    assert text(picture(shown(3, ["mails", "orders"]), 80, 24)) == ALL_IS_WELL


MANY = """\
reactive_orch  postgresql://shop@db/shop                       12:02:00Z  q ends
note  1 min  replica set shop: projection projection_00: 2 keys wait behind a
             failed event
note  1 min  replica set shop: projection projection_01: 2 keys wait behind a
             failed event
note  1 min  replica set shop: projection projection_02: 2 keys wait behind a
             failed event
  … and 17 more problems
log events  last position 5000, settled 5000, 62.5 events/s, 64 partitions
── replica set shop ────────────────────────────────────────────────────────────
generation 3: join of 1, 4 partitions moved, settled in 12 ms, 50 s ago
worker                  state         partitions heartbeat     up
A 1 web-1:401:a1b2c3    serving               40       0 s  1 min
B 2 web-2:402:a1b2c3    serving               20       0 s  1 min
C 3 web-3:403:a1b2c3    serving               20       0 s  1 min
  … and 47 more workers
projection      state     waiting oldest events/s   left failing last 2 min
projection_00   running       120    2 s   2000.0    0 s       2 ▂▂▃▃▄▄▅▅▆▆▆▇▇██
  AABCDDEFGHHIJKKLMNOOPQRRSTUVVWXYZZabccdefgghijjklmnnopqqrstuuvwx
projection_01   running       120    2 s   2000.0    0 s       2 ▂▂▃▃▄▄▅▅▆▆▆▇▇██
  AABCDDEFGHHIJKKLMNOOPQRRSTUVVWXYZZabccdefgghijjklmnnopqqrstuuvwx
projection_02   running       120    2 s   2000.0    0 s       2 ▂▂▃▃▄▄▅▅▆▆▆▇▇██
  AABCDDEFGHHIJKKLMNOOPQRRSTUVVWXYZZabccdefgghijjklmnnopqqrstuuvwx
  … and 17 more projections"""


def test_many_at_24_lines() -> None:
    of = shown(50, [f"projection_{each:02}" for each in range(20)], changed={"failing_keys": 2, "failing_s": 70.0})
    assert text(picture(of, 80, 24)) == MANY


NARROW = """\
reactive_orch  postgresq…  12:02:00Z  q ends
no problems
log events  last position 5000, settled 500…
── replica set shop ────────────────────────
generation 3: join of 1, 4 partitions moved…
worker              state         partitions
A 1 web-1:401:a1b2… serving               44
B 2 web-2:402:a1b2… serving               42
C 3 web-3:403:a1b2… serving               42
projection state     waiting oldest
mails      running       120    2 s
orders     running       120    2 s"""


def test_a_small_window() -> None:
    assert text(picture(shown(3, ["mails", "orders"]), 44, 12)) == NARROW


def test_of_1024_partitions_each_has_a_cell_where_there_is_room() -> None:
    of = shown(3, ["mails"], partitions=1024)
    cells = "A" * 342 + "B" * 341 + "C" * 341
    *_, above = (at for at, line in enumerate(picture(of, 80, 60)) if line.plain.startswith("mails"))
    drawn = [line.plain for line in picture(of, 80, 60)][above + 1 :]
    assert all(len(line) <= 80 for line in drawn)
    assert "".join(line.strip() for line in drawn) == cells


def test_of_1024_partitions_some_share_a_cell_where_there_is_none() -> None:
    lines = [line.plain for line in picture(shown(3, ["mails"], partitions=1024), 80, 12)]
    assert lines[-1] == f"  {'A' * 21}{'B' * 22}{'C' * 21} 16 a cell"


def test_what_nobody_has_and_who_is_no_member_are_on_the_map() -> None:
    owners = (MemberId(0),) * 3 + (MemberId(1),) * 2 + (MemberId(77),)
    of = shown(1, ["mails"], changed={"owners": owners})
    assert picture(of, 80, 24)[-1].plain == "  ···AA?"


def test_problems_come_first_with_what_helps_and_a_long_one_is_whole_where_there_is_room() -> None:
    of = shown(1, ["mails"], changed={"rest": rest("halted", "a very long reason, " * 9)})
    lines = text(picture(of, 80, 24)).splitlines()
    assert lines[1:5] == [
        "bad     5 s  replica set shop: projection mails is halted: a very long reason, a",
        "             very long reason, a very long reason, a very long reason, a very",
        "             long reason, a very long reason, a very long reason, a very long",
        "             reason, a very long reason, (ann@vm)",
    ]
    assert " ".join(line.strip(" \\") for line in lines[5:7]) == of.problems[0].command
    short = text(picture(of, 80, 9)).splitlines()
    assert short[1] == "bad     5 s  replica set shop: projection mails is halted: a very long reason, …"


def test_a_command_that_is_cut_in_lines_is_one_to_a_shell() -> None:
    held = replace(
        shown(1, ["mails"]).overview.logs[0].seen,
        holders=[replace(HOLDER, pid=None, prepared="it's the one of the night before")],
    )
    of = shown(1, ["mails"])
    now = replace(of.overview, logs=[replace(of.overview.logs[0], seen=held)])
    of = replace(of, overview=now, problems=problems(now))
    lines = [line.plain for line in picture(of, 80, 40)]
    begin = next(at for at, line in enumerate(lines) if line.lstrip().startswith("psql"))
    assert lines[begin].endswith(" \\")
    assert "".join(line.strip().removesuffix("\\") for line in lines[begin : begin + 2]) == of.problems[0].command


def test_the_last_picture_stays_while_the_database_is_away() -> None:
    of = shown(3, ["mails", "orders"])
    away = replace(of, missing="the database is not reachable since 12:02:03: connection refused")
    lines = text(picture(away, 80, 24)).splitlines()
    assert lines[1] == away.missing
    assert [lines[0], *lines[2:]] == [ALL_IS_WELL.splitlines()[0], *ALL_IS_WELL.splitlines()[2:]]


def test_one_that_is_left_out_is_one() -> None:
    of = shown(3, ["mails", "orders"], sets=3)
    seen = {line.strip() for height in range(3, 60) for line in text(picture(of, 80, height)).splitlines()}
    assert {"… and 1 more log line", "… and 2 more projections"} <= seen
    assert "… and 1 more replica set: --replica-set NAME shows one" in seen


def test_more_replica_sets_than_have_room_are_counted() -> None:
    lines = text(picture(shown(3, ["mails", "orders"], sets=9), 80, 24)).splitlines()
    assert len(lines) <= 24
    headings = sum(line.startswith("── replica set ") for line in lines)
    assert headings == 2
    assert lines[-1] == f"… and {9 - headings} more replica sets: --replica-set NAME shows one"


def test_nobody_and_nothing() -> None:
    none = replace(shown(0, []), overview=overview(Seen(at=AT, logs=[LOG], generations={}, workers=[], projections=[])))
    assert text(picture(none, 80, 24)).splitlines()[-1].startswith("no replica set yet: ")
    lines = text(picture(shown(0, ["mails"]), 80, 24)).splitlines()
    assert "no worker" in lines


@pytest.mark.parametrize("no_color", [False, True])
def test_what_comes_from_the_database_is_text(no_color: bool) -> None:  # noqa: FBT001 - a column of its table
    reason = rest("halted", EVIL)
    of = shown(1, [EVIL], changed={"rest": reason, "last_error": EVIL})
    now = replace(of.overview, replica_sets=[replace(each, name=EVIL) for each in of.overview.replica_sets])
    now = replace(
        now,
        replica_sets=[
            replace(each, workers=[replace(w, state=EVIL, seen=replace(w.seen, name=EVIL)) for w in each.workers])
            for each in now.replica_sets
        ],
    )
    evil = replace(of, overview=now, problems=problems(now), where=EVIL, missing=f"away: {EVIL}")
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=120, height=40, no_color=no_color, legacy_windows=False)
    console.print(Group(*picture(evil, 120, 40)))
    written = out.getvalue()
    assert "[bold red]boom[/]" in written
    assert r"\x1b[2J" in written
    assert "\x1b[2J" not in written
    assert "\u202e" not in written
    assert ":smile:" in written
    assert ("\x1b[1;31m" in written) is not no_color


def test_a_worker_has_one_colour_in_the_list_and_on_the_map() -> None:
    *_, two, _head, _line, map_ = picture(shown(2, ["mails"]), 80, 24)
    styles = {map_.plain[span.start]: span.style for span in map_.spans}
    assert set(styles) == {"A", "B"}
    assert styles["A"] != styles["B"]
    assert two.plain.startswith("B 2 ")
    assert two.spans[0].style == styles["B"]


SHAPES = [(0, 1, 64, 1), (1, 1, 1, 1), (3, 20, 64, 4), (60, 20, 1024, 1), (3, 2, 1024, 2)]


@cache
def shaped(workers: int, projections: int, partitions: int, sets: int) -> Shown:
    return shown(workers, [f"订单-{each}" for each in range(projections)], partitions, sets, seconds=(120,))


@given(st.integers(1, 200), st.integers(1, 70), st.sampled_from(SHAPES))
def test_it_never_leaves_the_window(width: int, height: int, shape: tuple[int, int, int, int]) -> None:
    lines = picture(shaped(*shape), width, height)
    assert len(lines) <= height
    assert all(line.cell_len <= width for line in lines)


@pytest.mark.parametrize(
    ("count", "written"),
    [(0, "0"), (99_999, "99999"), (100_000, "100k"), (999_999, "999k"), (1_234_567, "1.2M"), (123_456_789, "123M")],
)
def test_a_number_in_few_characters(count: int, written: str) -> None:
    assert number(count) == written


@pytest.mark.parametrize(
    ("seconds", "written"), [(0.4, "0 s"), (59.9, "59 s"), (60, "1 min"), (7_199, "1 h"), (200_000, "2 d")]
)
def test_a_time_in_its_largest_unit(seconds: float, written: str) -> None:
    assert lasting(seconds) == written


@pytest.mark.parametrize("width", range(20, 40))
def test_how_many_share_a_cell_is_never_cut_off(width: int) -> None:
    of = shaped(3, 1, 1024, 1)
    for height in range(11, 30):
        last = picture(of, width, height)[-1].plain
        assert not last.startswith("  ") or re.search(r"( \d+ a cell|C)$", last), (height, last)
