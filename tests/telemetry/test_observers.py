"""Who is told, and that nothing of it gets back."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, get_args

import pytest

from reactive_orch.model.reports import Report, RunnerStarted, Subject, Untraced, WindowRead
from reactive_orch.telemetry.observers import TABLES, watchers

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from reactive_orch.model import Event

SUBJECT = Subject("set", "one")


def test_every_report_is_taken_notice_of_and_nothing_else() -> None:
    assert {kind for handles in TABLES for kind in handles} == set(get_args(Report))


def test_one_that_raises_is_said_once_and_left_out(caplog: pytest.LogCaptureFixture) -> None:
    told: list[Report] = []
    tried: list[Report] = []

    def broken(report: Report) -> None:
        tried.append(report)
        raise ValueError("hush")  # noqa: EM101

    emit = watchers([broken, told.append]).emit
    reports: list[Report] = [RunnerStarted(SUBJECT), WindowRead(SUBJECT, 0.1), WindowRead(SUBJECT, 0.2)]
    for report in reports:
        emit(report)
    assert tried == reports[:1]
    assert told == reports
    (line,) = caplog.records
    assert vars(line)["event"] == "observer_failed"
    assert line.getMessage() == "an observer failed and is left out until the process starts again: ValueError"


class Broken(Untraced):
    """A tracing that fails when it is asked, or at one of the ends of its context."""

    def __init__(self, where: str) -> None:
        self.where = where
        self.asked = 0

    def batch(
        self, subject: Subject, generation: int, events: Sequence[Event]
    ) -> contextlib.AbstractContextManager[str]:
        del subject, generation, events
        self.asked += 1
        self.fail("asked")
        return self.context()

    @contextlib.contextmanager
    def context(self) -> Iterator[str]:
        self.fail("begin")
        yield "its traceparent"
        self.fail("end")

    def fail(self, where: str) -> None:
        if where == self.where:
            raise ValueError


@pytest.mark.parametrize(("where", "given"), [("asked", None), ("begin", None), ("end", "its traceparent")])
def test_a_tracing_that_raises_is_not_asked_again(
    where: str, given: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    broken = Broken(where)
    tracing = watchers([], broken).tracing
    found = []
    for _ in range(2):
        with tracing.batch(SUBJECT, 1, []) as traceparent:
            found.append(traceparent)
    assert (found, broken.asked) == ([given, None], 1)
    assert [vars(line)["event"] for line in caplog.records] == ["observer_failed"]


def test_what_a_batch_fails_with_gets_through() -> None:
    with pytest.raises(KeyError), watchers([], Broken("never")).tracing.batch(SUBJECT, 1, []):
        raise KeyError
