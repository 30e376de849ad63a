"""Who is told of what, and that nothing of it gets back."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, get_args

import pytest

from reactive_orch.errors import HandlerFailed, Unavailable
from reactive_orch.model import (
    OWN_LOG,
    Acknowledged,
    Adopted,
    AdoptionSteps,
    Change,
    Event,
    Holder,
    Member,
    MemberId,
    MemberState,
    Reason,
    Snapshot,
    Subscription,
    Turn,
    Window,
    WorkerState,
    Written,
)
from reactive_orch.model import reports as r
from reactive_orch.model.membership import Resting
from reactive_orch.model.problems import CODES, Problem
from reactive_orch.model.reports import Report, Subject, Untraced
from reactive_orch.model.status import LogStatus, PoolStatus, ProjectionStatus, ReplicaSetStatus, Status, WorkerStatus
from reactive_orch.telemetry import lines
from reactive_orch.telemetry import metric_names as m
from reactive_orch.telemetry.by_type import by_type
from reactive_orch.telemetry.logs import FIELDS
from reactive_orch.telemetry.metrics import Metrics
from reactive_orch.telemetry.observers import TABLES, telling, watchers
from reactive_orch.telemetry.registry import Registry
from reactive_orch.telemetry.spans import tracer
from reactive_orch.telemetry.spans.observer import Spans
from reactive_orch.telemetry.spans.rebalance import REMEMBERED_MAX

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from reactive_orch.model import EventHandler
    from reactive_orch.model.reports import Tracing
    from reactive_orch.telemetry.metric_names import Metric

ROOT = Path(__file__).parents[2] / "reactive_orch"
SUBJECT = Subject("set", "one", OWN_LOG)
NOW = datetime.now(UTC)
TURN = Turn("set", MemberId(7), "notify", noticed_ns=1_000_000_000, observed_ns=2_000_000_000, planned_ns=3_000_000_000)
MEMBER = Member(
    id=MemberId(8),
    name="m",
    state=MemberState.ACTIVE,
    subscriptions=frozenset({Subscription("one", OWN_LOG)}),
    lock_held=False,
    dead=True,
    stale=False,
    heartbeat_age_s=1.0,
    stale_after_s=30.0,
    acknowledged=3,
)
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
SNAPSHOT = Snapshot(
    generation=3,
    members=(MEMBER, MEMBER),
    owners={Subscription("one", OWN_LOG): (MEMBER.id,) * 4},
    reason=Reason.JOIN,
    traceparent=TRACEPARENT,
    created_at=NOW,
)
DEATH = Change(after=3, reason=Reason.DEATH, subjects=(MEMBER.id,), admit=(), remove=(MEMBER.id,), owners={}, moved=4)
WRITTEN = Written(4, NOW + timedelta(seconds=1), overtaken=True)
LAST = Acknowledged(0.1, NOW, slowest=7, kept=1, notify_max_s=0.1, finish_max_s=0.1, load_max_s=0.1)
STEPS = AdoptionSteps(turn=TURN, snapshot=SNAPSHOT, finished_ns=4_000_000_000, loaded_ns=4_000_000_000)
FACTS = Adopted("notify", 1.0, 0.5, 0.5, gave=1, took=2, kept=3)
ADOPTED = r.AdoptionEnded(
    STEPS, FACTS, "acknowledged", {Subscription("one", OWN_LOG): frozenset({1})}, (4_000_000_000, LAST), 5_000_000_000
)
HOLDER = Holder(pid=1, prepared=None, application="a", user="u", age_s=1.0, state="active", query="")
EVENT = Event._make(range(len(Event._fields)))._replace(metadata_json="{}", created_at=NOW)
ERROR = Unavailable("hush")
ERROR.__cause__ = OSError("hush")

_CHANGED = {m.STATEMENT_DURATION, m.GENERATIONS, m.PARTITIONS_MOVED, m.EXPULSIONS, m.DETECTION_DURATION}
_ADOPTED = {m.RECONFIGURATIONS, m.STATEMENT_DURATION, m.ASSIGNMENTS, m.ADOPTION_DURATION, m.PHASE_DURATION}
_HANDLED = {m.HANDLING_DURATION, m.BATCHES, m.EVENTS_HANDLED, m.BATCH_SIZE, m.EVENT_AGE}
_STEPS = ("observe", "finish batches", "load checkpoints", "acknowledge")


class Told(NamedTuple):
    """A report, and where it goes: metrics, spans, the event of a line."""

    report: Report
    counted: set[Metric]
    sent: tuple[str, ...]
    line: str | None


UNSERVED = Problem(level="warn", code="unserved", words="p is run by none", replica_set="set", projection="p")
STILL = Problem(level="bad", code="stands_still", words="no progress on p", replica_set="set", projection="p")
_TOLD: list[tuple[Report, set[Metric], tuple[str, ...], str | None]] = [
    (r.Appended(3), {m.EVENTS_APPENDED}, (), None),
    (r.Notified("events", "used"), {m.NOTIFICATIONS}, (), None),
    (r.HeartbeatSent(0.1, "ok"), {m.HEARTBEAT_DURATION}, (), None),
    (r.SessionLost(ERROR), set(), (), "disconnected"),
    (r.SessionBack(1, ERROR), {m.RECONNECTS}, ("reconnect membership",), "reconnected"),
    (r.ConnectionLost("tail"), {m.RECONNECTS}, (), None),
    (r.PoolWaited("work", 0.1), {m.POOL_WAIT}, (), None),
    (r.LoopMeasured(0.1), {m.LOOP_DELAY}, (), None),
    (r.LoopBlocked(2.0, ["one"]), set(), (), "loop_blocked"),
    (r.Interrupted("lane", ERROR), {m.INTERRUPTIONS}, (), None),
    (r.FollowerWoke(OWN_LOG, "timer"), {m.WAKE_UPS}, (), None),
    (r.FrontierHeld(OWN_LOG, 7, [HOLDER]), set(), (), "frontier_held"),
    (r.FrontierReleased(OWN_LOG, 9, [HOLDER], 2.0), set(), ("wait for frontier",), None),
    (r.RingingStopped(OWN_LOG, "because", 0.2), set(), (), "silent"),
    (r.RingingResumed(OWN_LOG), set(), (), "ringing"),
    (r.ProjectionRefused(SUBJECT), set(), (), "refused"),
    (r.ProjectionAccepted(SUBJECT), set(), (), "accepted"),
    (r.ProjectionGivenUp(SUBJECT), set(), (), "given_up"),
    (r.ProjectionProposed(SUBJECT), set(), (), "proposed"),
    (r.SteppedDown(SUBJECT, 30.0), set(), (), "stepped_down"),
    (r.TookPartAgain(SUBJECT), set(), (), "back"),
    (r.FilterUnmatched(SUBJECT, 10), set(), (), "unmatched"),
    (r.TurnBegan("set", "notify"), {m.WAKE_UPS}, (), None),
    (r.Looked(TURN), {m.STATEMENT_DURATION}, (), None),
    (r.JoinAsked("set"), {m.REGISTRATIONS}, (), None),
    (
        r.GenerationWritten(TURN, SNAPSHOT, DEATH, TRACEPARENT, 3_000_000_000, 4_000_000_000, WRITTEN),
        {*_CHANGED, m.REBALANCE_DURATION},
        ("complete set", "complete set"),
        None,
    ),
    (r.GenerationNotWritten(TURN, TRACEPARENT, 3_000_000_000, 4_000_000_000, None), {m.STATEMENT_DURATION}, (), None),
    (r.GenerationNotWritten(TURN, TRACEPARENT, 3_000_000_000, 4_000_000_000, ERROR), set(), (), None),
    (r.OrphansSpared(TURN, SNAPSHOT, 2), set(), (), "spared"),
    (ADOPTED, _ADOPTED, ("adopt set", *_STEPS), "adopted"),
    (
        ADOPTED._replace(outcome="superseded", acknowledging=None),
        {m.RECONFIGURATIONS},
        ("adopt set", *_STEPS[:3]),
        None,
    ),
    (r.GenerationCompleted(TURN, SNAPSHOT, LAST, 1.0), {m.REBALANCE_DURATION}, ("complete set",), None),
    (r.Expelled(TURN, SNAPSHOT), set(), ("expelled set",), "expelled"),
    (r.Left(TURN, SNAPSHOT, {}, 30.0), set(), (), "left"),
    (r.Abandoned("set", {Subscription("one", OWN_LOG): frozenset({1})}), set(), (), "abandoned"),
    (r.Unreachable("set", ERROR), set(), (), "unavailable"),
    (r.ProblemBegan(UNSERVED), set(), (), "problem"),
    (r.ProblemEnded(UNSERVED), set(), (), "solved"),
    (r.ProblemBegan(STILL), set(), (), "stalled"),
    (r.ProblemEnded(STILL), set(), (), "resumed"),
    (r.ProblemBegan(replace(STILL, code="unavailable")), set(), (), None),
    (r.ProblemEnded(replace(STILL, code="unavailable")), set(), (), "solved"),
    (r.WindowRead(SUBJECT, 0.1), {m.READ_DURATION}, (), None),
    (r.EventUnreadable(SUBJECT, ERROR), {m.PROJECTION_ERRORS}, (), None),
    (r.BatchEnded(SUBJECT, [EVENT], 0.1, None, None), _HANDLED, (), None),
    (
        r.BatchEnded(SUBJECT, [EVENT], 0.1, HandlerFailed("hush"), None),
        {m.HANDLING_DURATION, m.BATCHES, m.PROJECTION_ERRORS},
        (),
        None,
    ),
    (r.BatchEnded(SUBJECT, [EVENT], 0.1, ERROR, None), {m.HANDLING_DURATION, m.BATCHES}, (), None),
    (r.AttemptFailed(SUBJECT, 7, ERROR, alone=True, first=True), set(), (), "retrying"),
    (r.RestChanged(SUBJECT, Resting("paused")), set(), (), "paused"),
    (r.RestChanged(SUBJECT, Resting("halted")), set(), (), "halted"),
    (r.RestChanged(SUBJECT, Resting("suspended", "all fail")), set(), (), "suspended"),
    (r.Serialized(SUBJECT, 10.0), set(), (), "serialized"),
    (r.RestChanged(SUBJECT, None), set(), (), "running"),
    (r.Suspected(SUBJECT, 8), set(), (), "suspected"),
    (r.KeyParked(SUBJECT, 7, 3, ERROR, first=True), set(), (), "parked"),
    (r.EventFailed(SUBJECT, 7, 3, ERROR, first=True), set(), (), "failed"),
    (r.KeyLive(SUBJECT, 3), set(), (), "live"),
    (r.ReadCut(SUBJECT, Window((), 1, 9, 1), ERROR), set(), (), "read_cut"),
    (r.Struck(SUBJECT), set(), (), "struck"),
]
TOLD = [Told(*row) for row in _TOLD]
STARTS = {r.NodeStarted, r.NodeStopped, r.WorkerStarted, r.RunnerStarted}


def test_every_report_is_taken_notice_of_and_nothing_else() -> None:
    assert {kind for handles in TABLES for kind in handles} == set(get_args(Report))
    assert {type(report) for report, *_ in TOLD} | STARTS == set(get_args(Report))


@pytest.mark.parametrize("told", TOLD, ids=lambda told: f"{TOLD.index(told)}-{type(told.report).__name__}")
def test_where_a_report_goes(
    told: Told, finished: Callable[[], tuple[Any, ...]], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    registry, spans = Registry(), Spans()
    telling(map(by_type, (spans.handles, Metrics(registry, spans.sent_of).handles, lines.HANDLES)))(told.report)
    series = {**registry.sums, **registry.distributions}
    assert {metric for metric, values in series.items() if values} == told.counted
    assert sorted(span.name for span in finished()) == sorted(told.sent)
    assert [vars(record)["event"] for record in caplog.records] == ([told.line] if told.line else [])
    assert "hush" not in caplog.text
    of_replica_set = {"subject", "replica_set", "turn", "steps", "problem"} & {*told.report._fields}
    for record in caplog.records:
        assert vars(record).get("replica_set") == ("set" if of_replica_set else None)


def test_all_that_a_line_carries_is_written_in_json(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    for told in TOLD:
        telling([by_type(lines.HANDLES)])(told.report)
    carried = {key for record in caplog.records for key in vars(record)} - vars(logging.makeLogRecord({})).keys()
    assert carried - {"message", "asctime", "trace_id"} <= {*FIELDS}
    assert {"replica_set", "projection", "log"} <= carried


def test_a_line_names_a_few_partitions_and_counts_many(caplog: pytest.LogCaptureFixture) -> None:
    of = Subscription("one", OWN_LOG)
    for partitions, said in ((8, "partitions 0, 1, 2, 3, 4, 5, 6, 7"), (9, "9 partitions")):
        lines_of(r.Abandoned("set", {of: frozenset(range(partitions))}), caplog)
        assert f"the batches of projection one, {said}: " in caplog.messages[-1]


def test_a_command_to_be_pasted_quotes_names(caplog: pytest.LogCaptureFixture) -> None:
    subject = r.Subject("my shop", "-mails", OWN_LOG)
    telling([by_type(lines.HANDLES)])(r.KeyParked(subject, 7, 3, ERROR, first=True))
    command = "see python -m reactive_orch dead-letters show --replica-set 'my shop' --projection=-mails"
    assert caplog.messages[-1].endswith(command)


def lines_of(report: Report, caplog: pytest.LogCaptureFixture) -> list[tuple[str, str | None]]:
    """Return the events and codes of the lines that a report makes."""
    caplog.clear()
    telling([by_type(lines.HANDLES)])(report)
    return [(vars(record)["event"], vars(record).get("code")) for record in caplog.records]


@pytest.mark.parametrize("code", sorted(CODES))
def test_a_problem_has_one_line_that_names_its_code(code: str, caplog: pytest.LogCaptureFixture) -> None:
    """Either its own, or one of the report that says more of it."""
    caplog.set_level("INFO")
    own = [found for _, found in lines_of(r.ProblemBegan(replace(STILL, code=code)), caplog)]
    others = [
        found
        for told in TOLD
        if not isinstance(told.report, r.ProblemBegan | r.ProblemEnded)
        for _, found in lines_of(told.report, caplog)
        if found == code
    ]
    if code in {"stopped", "draining", "nothing_to_run"}:  # told by `left`, and by a `refused` for each projection
        assert not own
        assert not others
    else:
        assert own + others[:1] == [code]


def test_exemplars_name_the_spans_that_were_sent(finished: Callable[[], tuple[Any, ...]]) -> None:
    registry, spans = Registry(), Spans()
    emit = telling(map(by_type, (spans.handles, Metrics(registry, spans.sent_of).handles)))
    emit(r.GenerationCompleted(TURN, SNAPSHOT, LAST, 1.0))
    emit(ADOPTED)
    by_name = {span.name: f"{span.context.span_id:016x}" for span in finished()}
    for metric, name in ((m.REBALANCE_DURATION, "complete set"), (m.ADOPTION_DURATION, "adopt set")):
        (one,) = registry.distributions[metric].values()
        assert [exemplar.traceparent.split("-")[2] for exemplar in one.exemplars.values()] == [by_name[name]]


def test_a_generation_is_a_root_and_its_steps(finished: Callable[[], tuple[Any, ...]]) -> None:
    spans = Spans()
    emit, join = (
        telling([by_type(spans.handles)]),
        Change(after=3, reason=Reason.STALE, subjects=(MEMBER.id,), admit=(), remove=(MEMBER.id,), owners={}, moved=1),
    )
    traceparent = spans.generation(TURN, SNAPSHOT, join)
    assert traceparent is not None
    assert not finished(), "nothing is sent of a generation that may never be written"
    emit(r.GenerationWritten(TURN, SNAPSHOT, join, traceparent, 1, 2, WRITTEN._replace(overtaken=False)))
    root, announced, *others = finished()
    assert (root.name, announced.parent.span_id) == ("rebalance set", root.context.span_id)
    assert (announced.name, f"{announced.context.span_id:016x}") == ("announce generation", traceparent.split("-")[2])
    children = [span.name for span in others if span.parent.span_id == root.context.span_id]
    assert children == [*("detect stale",) * 2, "observe", "plan assignment", "change generation"]
    (complete,) = (span for span in others if span.parent.span_id == announced.context.span_id)
    assert complete.name == "complete set"


def test_no_viewer_takes_what_follows_for_clocks_that_disagree(finished: Callable[[], tuple[Any, ...]]) -> None:
    """Jaeger does where a span is not longer than its parent, and not within it."""
    spans = Spans()
    emit = telling([by_type(spans.handles)])
    last = Change(
        after=3, reason=Reason.LEAVE, subjects=(MEMBER.id,), admit=(), remove=(MEMBER.id,), owners={}, moved=0
    )
    traceparent = spans.generation(TURN, SNAPSHOT, last)
    assert traceparent is not None
    emit(r.GenerationWritten(TURN, SNAPSHOT, last, traceparent, 1, 2, WRITTEN._replace(overtaken=False)))
    (announced,) = (span for span in finished() if span.name == "announce generation")
    assert announced.end_time - announced.start_time == 1, "without length it would be taken for a mistake"
    below = [span for span in finished() if span.parent and span.parent.span_id == announced.context.span_id]
    assert below
    assert all(span.end_time - span.start_time >= 1000 for span in below), "a microsecond, the least that it stores"


@pytest.mark.parametrize(("age_s", "began_s"), [(0.25, 1.75), (60.0, 1.0), (-1.0, 2.0)])
def test_nobody_adopts_a_generation_before_there_was_one(
    finished: Callable[[], tuple[Any, ...]], age_s: float, began_s: float
) -> None:
    """A look lasts from 1 s to 2 s; where it was under way when the generation was written, the rest of it counts."""
    looked = replace(STEPS, snapshot=replace(SNAPSHOT, age_s=age_s))
    telling([by_type(Spans().handles)])(ADOPTED._replace(steps=looked))
    began = {span.name: span.start_time / 1e9 for span in finished() if span.name in {"adopt set", "observe"}}
    assert began == {"adopt set": began_s, "observe": began_s}


def test_a_generation_that_others_were_quicker_to_write_sends_nothing(finished: Callable[[], tuple[Any, ...]]) -> None:
    spans = Spans()
    traceparent = spans.generation(TURN, SNAPSHOT, DEATH)
    assert traceparent is not None
    telling([by_type(spans.handles)])(r.GenerationNotWritten(TURN, traceparent, 1, 2, None))
    assert not finished()


def test_roots_whose_end_is_never_told_do_not_pile_up(finished: Callable[[], tuple[Any, ...]]) -> None:
    spans = Spans()
    emit = telling([by_type(spans.handles)])
    traceparents = [spans.generation(TURN, SNAPSHOT, DEATH) or "" for _ in range(REMEMBERED_MAX + 1)]
    for traceparent in traceparents[:2]:
        emit(r.GenerationNotWritten(TURN, traceparent, 1, 2, ERROR))
    told = [tracer.traceparent_of(span) for span in finished() if span.name == "announce generation"]
    assert told == traceparents[1:2]


def test_the_expelled_are_linked_to_what_they_adopted_last(finished: Callable[[], tuple[Any, ...]]) -> None:
    emit = telling([by_type(Spans().handles)])
    for report in (ADOPTED, r.Expelled(TURN, SNAPSHOT), r.Expelled(TURN, SNAPSHOT)):
        emit(report)
    adopt, *_, first, second = finished()
    assert [link.context.span_id for link in first.links] == [adopt.context.span_id]
    assert not second.links


STATUS = Status(
    listening_s=2.0,
    queue_usage=0.5,
    logs=(LogStatus(OWN_LOG, settled=9, held_s=1.5, holders={"running": 1, "prepared": 2}),),
    pools={"work": PoolStatus(used=3, idle=4)},
    workers=(
        WorkerStatus(
            replica_set="set",
            member=MemberId(1),
            state=WorkerState.SERVING,
            seen=ReplicaSetStatus(
                generation=3,
                complete=2,
                members={MemberState.ACTIVE: 5},
                partitions=64,
                unserved={Subscription("one", OWN_LOG): False, Subscription("other", OWN_LOG): True},
                resting={Subscription("one", OWN_LOG): None, Subscription("other", OWN_LOG): "suspended"},
            ),
            projections=(
                ProjectionStatus(
                    subscription=Subscription("one", OWN_LOG),
                    lag=7,
                    held=10,
                    behind=20,
                    lag_s=0.7,
                    events_handled=100,
                    busy_s=1.0,
                    lanes=2,
                    standstill_s=0.1,
                    failing_keys=0,
                    one_at_a_time=True,
                    owned=6,
                    awaited=5,
                    leaving=4,
                ),
            ),
        ),
    ),
    problems=(UNSERVED,),
)


def test_a_process_is_seen_from_its_start_to_its_end() -> None:
    def status() -> Status:
        return STATUS

    registry = Registry()
    emit = telling([by_type(Metrics(registry, lambda _: None).handles)])
    gauges = [metric for metric in m.METRICS if metric.kind is m.Kind.GAUGE]
    emit(r.NodeStarted(status))
    shown = registry.gauges()
    assert all(shown[metric] for metric in gauges), "each is of a status"
    assert shown[m.OWNED] == {(*SUBJECT, "owned"): 6, (*SUBJECT, "awaited"): 5, (*SUBJECT, "leaving"): 4}
    assert shown[m.ONE_AT_A_TIME] == {SUBJECT: 1.0}
    resting = {of for of, value in shown[m.RESTING].items() if value}
    assert resting == {("set", "other", OWN_LOG, "suspended")}
    assert len(shown[m.RESTING]) == 2 * 3, "each state of each projection"
    assert shown[m.WORKER_STATE]["set", "serving"] == 1.0
    assert sum(shown[m.WORKER_STATE].values()) == 1.0
    assert registry.sums[m.WAKE_UPS]["turn", "notify"] == 0, "what is of a process is there from its start"
    emit(r.WorkerStarted("set"))
    assert registry.sums[m.REGISTRATIONS]["set",] == 0
    emit(r.RunnerStarted(SUBJECT))
    assert registry.sums[m.BATCHES][*SUBJECT, "committed"] == 0
    emit(r.NodeStopped(status))
    assert not any(registry.gauges().values())


def test_every_report_is_told_by_somebody() -> None:
    rooms = [*(ROOT / "runtime").rglob("*.py"), ROOT / "appending.py"]
    code = "".join(path.read_text() for path in rooms)
    assert not [kind.__name__ for kind in get_args(Report) if not re.search(rf"\b{kind.__name__}\(", code)]


def test_one_that_raises_is_said_once_and_left_out(caplog: pytest.LogCaptureFixture) -> None:
    told: list[Report] = []
    tried: list[Report] = []

    def broken(report: Report) -> None:
        tried.append(report)
        raise ValueError("hush")  # noqa: EM101

    emit = watchers([broken, told.append]).emit
    reports: list[Report] = [r.RunnerStarted(SUBJECT), r.WindowRead(SUBJECT, 0.1), r.WindowRead(SUBJECT, 0.2)]
    for report in reports:
        emit(report)
    assert tried == reports[:1]
    assert told == reports
    (line,) = caplog.records
    assert vars(line)["event"] == "observer_failed"
    assert line.getMessage() == "an observer failed and is left out until the process starts again: ValueError"


class Broken(Untraced):
    """A tracing that fails when it is asked, or at one of the ends of its contexts."""

    def __init__(self, where: str) -> None:
        self.where = where
        self.asked = 0

    def generation(self, turn: Turn, snapshot: Snapshot, change: Change) -> None:
        del turn, snapshot, change
        self._asked()

    def batch(
        self, subject: Subject, generation: int, events: Sequence[Event]
    ) -> contextlib.AbstractContextManager[str]:
        del subject, generation, events
        self._asked()
        return self.context()

    def each(self, subject: Subject, handler: EventHandler) -> EventHandler:
        self._asked()
        return super().each(subject, handler)

    def quiet(self) -> contextlib.AbstractContextManager[str]:
        self._asked()
        return self.context()

    def _asked(self) -> None:
        self.asked += 1
        self.fail("asked")

    @contextlib.contextmanager
    def context(self) -> Iterator[str]:
        self.fail("begin")
        yield TRACEPARENT
        self.fail("end")

    def fail(self, where: str) -> None:
        if where == self.where:
            raise ValueError


@pytest.mark.parametrize(
    "context", [lambda tracing: tracing.batch(SUBJECT, 1, []), lambda tracing: tracing.quiet()], ids=["batch", "quiet"]
)
@pytest.mark.parametrize(("where", "given"), [("asked", None), ("begin", None), ("end", TRACEPARENT)])
def test_a_tracing_that_raises_is_not_asked_again(
    where: str, given: str | None, context: Callable[[Tracing], Any], caplog: pytest.LogCaptureFixture
) -> None:
    broken = Broken(where)
    tracing = watchers([], broken).tracing
    found = []
    for _ in range(2):
        with context(tracing) as traceparent:
            found.append(traceparent)
    assert (found, broken.asked) == ([given, None], 1)
    assert [vars(line)["event"] for line in caplog.records] == ["observer_failed"]


async def test_without_an_answer_everything_is_as_it_was() -> None:
    async def handler(event: Event, tx: Any) -> None:
        """Do nothing."""

    assert watchers([], Broken("asked")).tracing.each(SUBJECT, handler) is handler
    assert watchers([], Broken("asked")).tracing.generation(TURN, SNAPSHOT, DEATH) is None


@pytest.mark.parametrize("where", ["asked", "begin", "end", "never"])
def test_what_a_batch_fails_with_gets_through(where: str) -> None:
    with pytest.raises(KeyError), watchers([], Broken(where)).tracing.batch(SUBJECT, 1, []):
        raise KeyError


def test_a_cancellation_that_an_observer_has_met_is_its_own(caplog: pytest.LogCaptureFixture) -> None:
    told: list[Report] = []

    def cancelled(_report: Report) -> None:
        raise asyncio.CancelledError

    emit = watchers([cancelled, told.append]).emit
    emit(r.RunnerStarted(SUBJECT))
    emit(r.WindowRead(SUBJECT, 0.1))
    assert len(told) == 2
    (line,) = caplog.records
    assert "an observer failed and is left out" in line.message


@pytest.mark.parametrize("answer", [123, b"z", "x", "a\0b"])
def test_an_answer_that_is_no_traceparent_is_none(answer: Any, caplog: pytest.LogCaptureFixture) -> None:
    class Odd(r.Untraced):
        def generation(self, *_: object) -> Any:
            return answer

        def each(self, *_: object) -> Any:
            return answer

        def batch(self, *_: object) -> Any:
            return contextlib.nullcontext(answer)

    tracing = watchers([], Odd()).tracing
    assert tracing.generation(TURN, SNAPSHOT, DEATH) is None
    assert tracing.generation(TURN, SNAPSHOT, DEATH) is None
    assert len(caplog.records) == 1, "it is not asked again"

    async def handler(event: Event, tx: Any) -> None:
        pass

    assert watchers([], Odd()).tracing.each(SUBJECT, handler) is handler
    with watchers([], Odd()).tracing.batch(SUBJECT, 1, []) as given:
        assert given is None
