"""How far a command is: in which words, and when they are shown at all."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from rich.console import Console

from reactive_orch.commands import progress
from reactive_orch.commands.progress import Progress, amounts

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


class Shown:
    """What would be seen."""

    after_s, every_s = 1.0, 10.0

    def __init__(self) -> None:
        self.seen: list[tuple[str, str, float | None]] = []

    def show(self, doing: str, rest: Sequence[str], share: float | None) -> None:
        self.seen.append((doing, ", ".join(rest), share))

    def close(self) -> None:
        self.seen.append(("closed", "", None))


@pytest.fixture
def at(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])

    def set_to(moment: float) -> None:
        now[0] = moment

    return set_to


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ((430_000, 1_000_000, "events", 110_000.0), "430,000 of 1,000,000 events, 110,000 events/s, 0:00:05 left"),
        ((430_000, None, "events", 110_000.0), "430,000 events, 110,000 events/s"),
        ((0, 1_000_000, "events", 0.0), "0 of 1,000,000 events"),
        ((9, 10, "events", 0.3), "9 of 10 events, 0.3 events/s, 0:00:03 left"),
        ((9, 10, "events", 1e-9), "9 of 10 events"),
        ((11_300_000, 218_000_000, "bytes", 11_000_000.0), "11 of 218 MB, 11 MB/s, 0:00:19 left"),
        ((20, 10, "events", 1.0), "20 of 10 events, 1 events/s, 0:00:00 left"),
        ((0, 10, "bytes", 0.0), "0 of 1 MB"),
    ],
)
def test_the_words(said: tuple[int, int | None, str, float], words: str) -> None:
    assert ", ".join(amounts(*said)) == words


def test_what_is_done_soon_is_not_worth_a_word(at: Callable[[float], None]) -> None:
    shown = Shown()
    told = Progress("append", lambda: shown)
    at(0.9)
    told.at("reading", 5, 10)
    told.still("numbering")
    assert shown.seen == []
    at(1.0)
    told.still("numbering")
    assert shown.seen == [("append: numbering", "0:00:00 so far", None)]


def test_it_is_shown_now_and_then_however_often_it_is_told(at: Callable[[float], None]) -> None:
    shown = Shown()
    told = Progress("append", lambda: shown)
    for moment in range(100):
        at(moment)
        told.at("appending", moment * 10, 1000)
    assert [share for _, _, share in shown.seen] == [n / 100 for n in range(1, 100, 10)]
    assert shown.seen[1] == ("append: appending", "110 of 1,000 events, 10 events/s, 0:01:29 left", 0.11)


def test_a_wait_says_for_how_long_and_why_again_and_again(at: Callable[[float], None]) -> None:
    shown = Shown()
    told = Progress("rewind", lambda: shown)
    for moment in range(0, 30, 2):
        at(moment)
        told.still("waiting", "for pid 7\x1b[2J")
        told.go_on()
    rest = [rest for _, rest, _ in shown.seen]
    assert rest == [f"0:00:{n:02} so far, for pid 7\\x1b[2J" for n in (2, 12, 22)]


def test_what_is_counted_is_not_taken_for_a_wait(at: Callable[[float], None]) -> None:
    shown = Shown()
    told = Progress("append", lambda: shown)
    at(5)
    told.still("numbering")
    for moment in (10, 20, 30):
        at(moment)
        told.at("appending", moment, 100)
        at(moment + 5)
        told.go_on()
    assert [doing for doing, _, _ in shown.seen] == ["append: numbering", *["append: appending"] * 2]


def test_each_thing_that_is_done_has_a_rate_of_its_own(at: Callable[[float], None]) -> None:
    shown = Shown()
    told = Progress("append", lambda: shown)
    for moment, doing in ((0, "sending"), (10, "sending"), (20, "appending"), (30, "appending")):
        at(moment)
        told.at(doing, moment * 100 if doing == "sending" else moment, 10_000)
    rates = [rest.split(", ")[1] for _, rest, _ in shown.seen if "/s" in rest]
    assert rates == ["100 events/s", "1 events/s"]


def test_silence_is_silent() -> None:
    with progress.progress("append", silent=True) as told:
        told.at("reading", 1, 2)
        told.still("waiting")


@pytest.mark.parametrize(
    ("width", "words"),
    [
        (120, " 43%, 430,000 of 1,000,000 events, 110,000 events/s, 0:00:05 left"),
        (80, " 43%, 110,000 events/s, 0:00:05 left"),
    ],
)
def test_the_bar_has_room(width: int, words: str) -> None:
    console = Console(width=width, force_terminal=True, color_system=None)
    with console.capture() as drawn:
        rest = amounts(430_000, 1_000_000, "events", 110_000.0)
        console.print(progress.line("append: reading", rest, 0.43, width))
    (line,) = drawn.get().splitlines()
    assert line.rstrip().endswith(words)
    assert line.count("━") >= progress.BAR_WIDTH_LEAST
    assert len(line) <= width
