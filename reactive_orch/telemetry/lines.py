"""Reports made into log lines: one line each, its `event` in a word. What a line may say, `logs` says."""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING, Any

from reactive_orch.errors import kind_of, named, place_of
from reactive_orch.model.membership import why
from reactive_orch.model.problems import command, words
from reactive_orch.model.reports import (
    Abandoned,
    AdoptionEnded,
    AttemptFailed,
    EventFailed,
    Expelled,
    FilterUnmatched,
    FrontierHeld,
    KeyLive,
    KeyParked,
    Left,
    LoopBlocked,
    OrphansSpared,
    ProblemBegan,
    ProblemEnded,
    ProjectionAccepted,
    ProjectionGivenUp,
    ProjectionProposed,
    ProjectionRefused,
    ReadCut,
    RestChanged,
    RingingResumed,
    RingingStopped,
    Serialized,
    SessionBack,
    SessionLost,
    SteppedDown,
    Struck,
    Suspected,
    TookPartAgain,
    Unreachable,
)
from reactive_orch.model.traces import trace_id
from reactive_orch.telemetry.by_type import Handles, on

if TYPE_CHECKING:
    from collections.abc import Mapping

    from reactive_orch.model import Partition, Snapshot, Subscription, Turn
    from reactive_orch.model.problems import Level, Problem

NAMED_MAX = 8
"""A line names no more partitions than this: of more it says how many."""

_logger = logging.getLogger("reactive_orch")


def _fields(event: str, turn: Turn, snapshot: Snapshot) -> dict[str, Any]:
    """Return what a line about a rebalance carries besides its words."""
    return {
        "event": event,
        "replica_set": turn.replica_set,
        "generation": snapshot.generation,
        "member": turn.member,
        "trace_id": trace_id(snapshot.traceparent),
    }


def _told(code: str, event: str = "") -> dict[str, Any]:
    """Return what a line carries that tells of a problem; its event has the same name unless it says otherwise."""
    return {"event": event or code, "code": code}


def _session_lost(report: SessionLost) -> None:
    _logger.warning("%s: %s", words("disconnected"), kind_of(report.error), extra=_told("disconnected"))


def _session_back(_report: SessionBack) -> None:
    _logger.info("membership connection is back", extra={"event": "reconnected"})


def _loop_blocked(report: LoopBlocked) -> None:
    _logger.warning(
        "the event loop stood still for %.1f s: a handler did not await, or the process was stopped; "
        "projections with a batch in hand: %s",
        report.delay_s,
        ", ".join(report.busy) or "none",
        extra={"event": "loop_blocked"},
    )


def _frontier_held(report: FrontierHeld) -> None:
    _logger.warning(
        "the log cannot be read beyond position %d, held by %s",
        report.settled,
        "; ".join(map(str, report.holders)) or "a transaction that has just ended",
        extra=_told("log_held", "frontier_held") | {"log": report.log},
    )


def _ringing_stopped(report: RingingStopped) -> None:
    extra = _told("unrung", "silent") | {"log": report.log}
    _logger.warning("%s, every %g s: %s", words("unrung"), report.every_s, report.reason, extra=extra)


def _ringing_resumed(report: RingingResumed) -> None:
    _logger.info("writers ring again", extra={"event": "ringing", "log": report.log})


def _projection_refused(report: ProjectionRefused) -> None:
    replica_set, projection, _ = report.subject
    _logger.error(
        "%s and not run here until this one is accepted; say from where, perhaps (or start, or a position): %s",
        words("refused", projection),
        command("refused", replica_set, projection),
        extra=_told("refused") | report.subject._asdict(),
    )


def _projection_given_up(report: ProjectionGivenUp) -> None:
    text = "projection %s: another filter was accepted; given up here, for the workers that have it"
    _logger.info(text, report.subject.projection, extra={"event": "given_up", **report.subject._asdict()})


def _projection_proposed(report: ProjectionProposed) -> None:
    replica_set, projection, _ = report.subject
    _logger.warning(
        "projection %s is run by no worker; this one would, with the filter that it has: %s",
        projection,
        command("refused", replica_set, projection),
        extra=_told("refused", "proposed") | report.subject._asdict(),
    )


def _projection_accepted(report: ProjectionAccepted) -> None:
    extra = {"event": "accepted", **report.subject._asdict()}
    _logger.info("projection %s: its filter is accepted, it is run here now", report.subject.projection, extra=extra)


def _stepped_down(report: SteppedDown) -> None:
    extra = _told("stepped_down") | report.subject._asdict()
    _logger.error("%s: for %.0f s", words("stepped_down", report.subject.projection), report.for_s, extra=extra)


def _took_part_again(report: TookPartAgain) -> None:
    text = "projection %s: run here again, after it was left to the other workers"
    _logger.info(text, report.subject.projection, extra={"event": "back", **report.subject._asdict()})


def _filter_unmatched(report: FilterUnmatched) -> None:
    text = "projection %s: none of the first and the last %d events of the log passes its filter; is a name misspelt?"
    extra = {"event": "unmatched", **report.subject._asdict()}
    _logger.warning(text, report.subject.projection, report.looked_at, extra=extra)


def _orphans_spared(report: OrphansSpared) -> None:
    text = "%d connections of removed workers could not be ended: no right to"
    _logger.warning(text, report.connections, extra=_fields("spared", report.turn, report.snapshot))


def _adoption_ended(report: AdoptionEnded) -> None:
    if report.outcome != "acknowledged" or report.acknowledging is None:
        return
    turn, snapshot, facts = report.steps.turn, report.steps.snapshot, report.facts
    complete = "" if report.completed_s is None else f", settled in {report.completed_s * 1000:.0f} ms"
    _logger.info(
        "generation %d of %s (%s), %d members: worker %s took %d, gave %d, kept %d partitions, holds %d; "
        "adopted in %.0f ms%s",
        snapshot.generation,
        turn.replica_set,
        why(snapshot.reason.value if snapshot.reason else "", snapshot.subjects),
        len(snapshot.members),
        turn.member,
        facts.took,
        facts.gave,
        facts.kept,
        sum(map(len, report.assigned.values())),
        turn.age_s(report.acknowledging[0]) * 1000,
        complete,
        extra=_fields("adopted", turn, snapshot),
    )


def _expelled(report: Expelled) -> None:
    turn, snapshot = report
    extra = _fields("expelled", turn, snapshot) | _told("expelled")
    _logger.warning("worker %d of %s: %s", turn.member, turn.replica_set, words("expelled"), extra=extra)


def _left(report: Left) -> None:
    turn, snapshot = report.turn, report.snapshot
    most = "" if math.isinf(report.grace_s) else f" at most {report.grace_s:g} s"
    waits = f"; waiting{most} for the batches of {_batches(report.in_hand)}" if report.in_hand else ""
    extra = _fields("left", turn, snapshot)
    _logger.info("worker %d has left %s%s", turn.member, turn.replica_set, waits, extra=extra)


def _abandoned(report: Abandoned) -> None:
    _logger.warning(
        "not waiting any longer for the batches of %s: they are rolled back, and others handle their events",
        _batches(report.in_hand),
        extra={"event": "abandoned", "replica_set": report.replica_set},
    )


def _batches(in_hand: Mapping[Subscription, frozenset[Partition]]) -> str:
    return "; ".join(f"projection {each.projection}, {_partitions(partitions)}" for each, partitions in in_hand.items())


def _partitions(numbers: frozenset[Partition]) -> str:
    if len(numbers) > NAMED_MAX:
        return f"{len(numbers)} partitions"
    return f"partition{'s' if len(numbers) > 1 else ''} {', '.join(map(str, sorted(numbers)))}"


def _unreachable(report: Unreachable) -> None:
    extra = _told("unavailable") | {"replica_set": report.replica_set}
    _logger.warning("%s, trying again until it is back: %s", words("unavailable"), named(report.error), extra=extra)


_TOLD: Mapping[str, tuple[str, str]] = {
    "stands_still": ("stalled", "resumed"),
    "interrupted": ("stalled", "resumed"),
    "unavailable": ("", "solved"),
    "log_held": ("", "solved"),
    "deadlocks": ("", "solved"),
    **dict.fromkeys(("stopped", "draining", "disconnected", "expelled", "unrung"), ("", "")),
    **dict.fromkeys(("refused", "nothing_to_run", "stepped_down", "retrying", "keys_wait"), ("", "")),
    **dict.fromkeys(("halted", "suspended", "paused"), ("", "")),
}
"""The events of the lines about a problem that begins and ends, where they are not `problem` and `solved`. Empty: the
line of another report tells of it, with more than the problem knows."""
_LEVELS: Mapping[Level, int] = {"bad": logging.ERROR, "warn": logging.WARNING, "note": logging.INFO}


def _problem_began(report: ProblemBegan) -> None:
    problem = report.problem
    event, _ = _TOLD.get(problem.code, ("problem", "solved"))
    helps = f"; what helps: {problem.command}" if problem.command else ""
    if event:
        level = _LEVELS[problem.level]
        _logger.log(level, "%s: %s%s", problem.code, problem.text, helps, extra=_of_problem(event, problem))


def _problem_ended(report: ProblemEnded) -> None:
    problem = report.problem
    _, event = _TOLD.get(problem.code, ("problem", "solved"))
    if event:
        _logger.info("over: %s: %s", problem.code, problem.text, extra=_of_problem(event, problem))


def _of_problem(event: str, problem: Problem) -> dict[str, Any]:
    about = {"replica_set": problem.replica_set, "projection": problem.projection, "log": problem.log}
    return {"event": event, "code": problem.code} | {key: value for key, value in about.items() if value}


def _attempt_failed(report: AttemptFailed) -> None:
    place = place_of(report.error)
    _logger.warning(
        "projection %s: batch rolled back at %sposition %d, trying again%s: %s%s",
        report.subject.projection,
        "" if report.alone else "or before ",
        report.position,
        f" (failed alone {_times(report.attempts)})" if report.attempts else "",
        named(report.error),
        f" at {place}" if place else "",
        extra=_told("retrying") | report.subject._asdict(),
    )


def _rest_changed(report: RestChanged) -> None:
    resting = report.resting
    about = report.subject._asdict()
    replica_set, projection, _ = report.subject
    text = "replica set %s: %s%s"
    if resting is None:
        extra = {"event": "running", **about}
        _logger.info(text, replica_set, f"projection {projection}", " runs again", extra=extra)
        return
    level = logging.INFO if resting.state == "paused" else logging.ERROR
    more = (
        f": {resting.reason}; it is tried again by itself after pauses that grow"
        if resting.reason
        else (": status says why, resume lets it run")
    )
    _logger.log(level, text, replica_set, words(resting.state, projection), more, extra=_told(resting.state) | about)


def _serialized(report: Serialized) -> None:
    _logger.warning(
        "projection %s: handlers have deadlocked, they write the same rows; for %.0f s its batches go one at a time, "
        "on all workers of %s. Give events that share rows a partition key, or write the rows sorted, in one statement "
        "a batch.",
        report.subject.projection,
        report.for_s,
        report.subject.replica_set,
        extra=_told("deadlocks", "serialized") | report.subject._asdict(),
    )


def _suspected(report: Suspected) -> None:
    text = (
        "projection %s: took %d partitions whose worker was lost without a word; "
        "which of their next events is in hand is recorded, in case one of them has ended it"
    )
    subject = report.subject
    _logger.info(text, subject.projection, report.partitions, extra={"event": "suspected", **subject._asdict()})


def _times(number: int) -> str:
    return "once" if number == 1 else f"{number} times"


def _key_parked(report: KeyParked) -> None:
    place = place_of(report.error)
    _logger.error(
        "projection %s: parked, with all later events of its key, the event at position %d, which has failed alone %s: "
        "%s%s; see %s",
        report.subject.projection,
        report.position,
        _times(report.attempts),
        named(report.error),
        f" at {place}" if place else "",
        command("keys_wait", report.subject.replica_set, report.subject.projection),
        extra=_told("keys_wait", "parked") | report.subject._asdict(),
    )


def _event_failed(report: EventFailed) -> None:
    place = place_of(report.error)
    _logger.error(
        "projection %s: halts, as the event at position %d has failed alone %s: %s%s",
        report.subject.projection,
        report.position,
        _times(report.attempts),
        named(report.error),
        f" at {place}" if place else "",
        extra={"event": "failed", **report.subject._asdict()},
    )


def _key_live(report: KeyLive) -> None:
    text = "projection %s: a key of partition %d is live again, all its events that waited are handled"
    _logger.info(text, report.subject.projection, report.partition, extra={"event": "live", **report.subject._asdict()})


def _read_cut(report: ReadCut) -> None:
    subject, window, error = report
    _logger.warning(
        "projection %s: reading from position %d to %d took too long, narrower from here: %s",
        *(subject.projection, window.low, window.high, named(error)),
        extra={"event": "read_cut", **subject._asdict()},
    )


def _struck(report: Struck) -> None:
    _logger.warning(
        "projection %s: cancelled between two calls, beginning again: has a handler left a time-out open?",
        report.subject.projection,
        extra={"event": "struck", **report.subject._asdict()},
    )


HANDLES: Handles = dict(
    [
        on(SessionLost, _session_lost),
        on(SessionBack, _session_back),
        on(LoopBlocked, _loop_blocked),
        on(FrontierHeld, _frontier_held),
        on(RingingStopped, _ringing_stopped),
        on(RingingResumed, _ringing_resumed),
        on(ProjectionRefused, _projection_refused),
        on(ProjectionAccepted, _projection_accepted),
        on(ProjectionGivenUp, _projection_given_up),
        on(ProjectionProposed, _projection_proposed),
        on(SteppedDown, _stepped_down),
        on(TookPartAgain, _took_part_again),
        on(FilterUnmatched, _filter_unmatched),
        on(OrphansSpared, _orphans_spared),
        on(AdoptionEnded, _adoption_ended),
        on(Expelled, _expelled),
        on(Left, _left),
        on(Abandoned, _abandoned),
        on(Unreachable, _unreachable),
        on(ProblemBegan, _problem_began),
        on(ProblemEnded, _problem_ended),
        on(AttemptFailed, _attempt_failed),
        on(RestChanged, _rest_changed),
        on(Serialized, _serialized),
        on(Suspected, _suspected),
        on(KeyParked, _key_parked),
        on(EventFailed, _event_failed),
        on(KeyLive, _key_live),
        on(ReadCut, _read_cut),
        on(Struck, _struck),
    ]
)
