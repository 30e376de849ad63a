"""How a replica set stands, in the shape in which the page takes it (docs/page.md)."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from reactive_orch.core.overview import is_silent
from reactive_orch.core.overview_json import begun, holder_as_json, named_process, problem_as_json, since
from reactive_orch.core.page.causes import cause_as_json
from reactive_orch.core.page.rebalances import rebalance
from reactive_orch.core.remedies import ending, ours
from reactive_orch.model import NOBODY
from reactive_orch.model.problems import command

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime

    from reactive_orch.model import Holder, MemberId, Partition, Position, Subscription
    from reactive_orch.model.account import Account
    from reactive_orch.model.keys import Cause
    from reactive_orch.model.membership import AdoptionRow, GenerationRow
    from reactive_orch.model.overview import (
        LogOverview,
        Overview,
        ProjectionOverview,
        ReplicaSetOverview,
        WorkerOverview,
        WorkerSeen,
    )
    from reactive_orch.model.problems import Problem

SLOTS = 84
"""So many workers are told apart by colour and pattern."""
HOLDS_AFTER_S = 1.0
"""A transaction that is open for less is a writer at work, as there always are some."""
FAR_BEHIND, FAR_EVENTS = 0.05, 10_000
"""Of the log, and in events: a projection that has so much before it is catching up, and its progress is shown."""


class Sighted(NamedTuple):
    """What one look has brought back for the page."""

    overview: Overview
    replica_sets: Sequence[str]
    rebalances: Sequence[tuple[GenerationRow, Sequence[AdoptionRow]]]
    """The oldest first."""
    parked: Mapping[Subscription, Mapping[Partition, int]]
    causes: Sequence[Cause]
    more_causes: int


def snapshot(replica_set: str, sighted: Sighted, problems: Sequence[Problem]) -> dict[str, Any]:
    """Return the page's object, but for what is remembered of looks before, and what the process adds."""
    overview = sighted.overview
    at, of = overview.at, next(each for each in overview.replica_sets if each.name == replica_set)
    logs = {each.seen.name: each for each in overview.logs}
    newest = sighted.rebalances[-1][0].number if sighted.rebalances else 0
    return {
        "at": at.isoformat(),
        "replica_set": replica_set,
        "replica_sets": list(sighted.replica_sets),
        "commands": _commands(replica_set),
        "database": {"state": "connected", "since": None, "headline": None, "reason": None},
        "problems": [_problem(each, at) for each in problems],
        "logs": {name: _log(each) for name, each in logs.items()},
        "workers": _workers(of, overview),
        "projections": {
            key_of(each.seen.subscription): _projection(each, of, logs.get(each.seen.subscription.log), sighted)
            for each in of.projections
        },
        "generations": {
            str(each[0].number): rebalance(*each, overtaken=each[0].number < newest) for each in sighted.rebalances
        },
        "failures": [cause_as_json(replica_set, each) for each in sighted.causes],
        "more_failures": sighted.more_causes,
    }


def nothing_seen(replica_set: str, at: str) -> dict[str, Any]:
    """Return the page's object while the database has not been seen once."""
    return {
        "at": at,
        "replica_set": replica_set,
        "replica_sets": [replica_set],
        "commands": _commands(replica_set),
        "database": {"state": "away", "since": None, "headline": None, "reason": None},
        "problems": [],
        "logs": {},
        "workers": {},
        "projections": {},
        "generations": {},
        "incidents": [],
        "failures": [],
        "more_failures": 0,
    }


def key_of(subscription: Subscription) -> str:
    """Return by what the page tells projections apart."""
    return (
        f"{subscription.projection}@1"
        if subscription.log == "events"
        else f"{subscription.projection}@1 {subscription.log}"
    )


def _commands(replica_set: str) -> Mapping[str, str]:
    return {
        "status": ours("status", replica_set=replica_set),
        "start": command("no_workers", replica_set),
        "append": ours("append", event_type="Hello", aggregate_type="Demo", aggregate_id="1"),
    }


def _problem(each: Problem, at: datetime) -> Mapping[str, Any]:
    """Return a problem in words that leave out whose it is: the page has its replica set above all."""
    return {**problem_as_json(each, partial(since, at)), "text": each.words}


def _log(each: LogOverview) -> Mapping[str, Any]:
    return {
        "name": each.seen.name,
        "partitions": each.seen.partitions,
        "head": each.seen.head,
        "settled": each.settled,
        "appended_per_s": each.events_per_s,
        "refusal": each.seen.refusal,
        "held_by": [_holder(holder) for holder in each.seen.holders if holder.age_s >= HOLDS_AFTER_S],
    }


def _holder(holder: Holder) -> Mapping[str, Any]:
    return {**holder_as_json(holder), "command": ending(holder.pid, holder.prepared)}


def slots(workers: Iterable[MemberId]) -> Mapping[MemberId, int]:
    """Return worker → its colour and pattern, in a number. All pages give the same, none twice while there is room."""
    given: dict[MemberId, int] = {}
    for worker in sorted(workers):
        wanted = (worker - 1) % SLOTS
        others = [*range(wanted, SLOTS), *range(wanted)]
        given[worker] = next((slot for slot in others if slot not in given.values()), wanted)
    return given


def _workers(of: ReplicaSetOverview, overview: Overview) -> Mapping[str, Any]:
    given = slots([each.seen.id for each in of.workers])
    return {str(each.seen.id): _worker(each, given[each.seen.id], overview) for each in of.workers}


def _worker(each: WorkerOverview, slot: int, overview: Overview) -> Mapping[str, Any]:
    seen, at, account = each.seen, overview.at, _account(each.seen)
    host, pid = named_process(seen.name)
    return {
        "id": seen.id,
        "slot": slot,
        "name": seen.name,
        "host": host,
        "pid": pid,
        "version": seen.account.version if seen.account else None,
        "state": _state(each),
        "started_at": None if each.uptime_s is None else since(at, each.uptime_s),
        "heartbeat_at": since(at, seen.heartbeat_age_s),
        "per_s": None if account is None else _per_s(account),
        "partitions": each.partitions,
        "busy": None if account is None else account.busy,
    }


def _state(each: WorkerOverview) -> str:
    if not each.seen.connected:
        return "dead"
    if each.seen.stale:
        return "stale"
    return "silent" if is_silent(each.seen) else each.state


def _account(seen: WorkerSeen) -> Account | None:
    """Return what a worker says of itself, unless that is old."""
    return None if is_silent(seen) or not seen.connected else seen.account


def _per_s(account: Account) -> float:
    return round(sum(each.events_per_s for each in account.projections.values()), 1)


def _projection(
    each: ProjectionOverview, of: ReplicaSetOverview, log: LogOverview | None, sighted: Sighted
) -> Mapping[str, Any]:
    seen, rest = each.seen, each.seen.rest
    settled = log.settled if log is not None else None
    owners = list(seen.owners)
    return {
        "name": seen.subscription.projection,
        "version": 1,
        "log": seen.subscription.log,
        "state": each.state,
        "since": None if rest is None else begun(rest.since, 0).isoformat(),
        "reason": None if rest is None else rest.reason or None,
        "by": None if rest is None else rest.by or None,
        "lag_events": each.told_lag_events,
        "lag_s": None if each.told_lag_s is None else round(each.told_lag_s, 3),
        "per_s": round(each.events_per_s, 1),
        "eta_s": None if each.eta_s is None else round(each.eta_s, 1),
        "done": _done(each, settled),
        "owners": owners,
        "behind": _behind(each, {worker.seen.id: worker.seen for worker in of.workers}, settled),
        "parked": {str(partition): keys for partition, keys in sighted.parked.get(seen.subscription, {}).items()},
        "failing_keys": seen.failing_keys,
        "waiting_events": seen.waiting_events,
        "parked_keys": seen.parked_keys,
        "parked_events": seen.parked_events,
        "last_error": seen.last_error,
        "one_at_a_time": seen.serial_until is not None,
    }


def _done(each: ProjectionOverview, settled: Position | None) -> float | None:
    """Return how much of what is to be handled again, or first, has been; None for what keeps up."""
    seen, end = each.seen, each.seen.replays_to or settled
    if not seen.saved or not end:
        return None
    if seen.replays_to is None and (each.lag_events or 0) < max(FAR_BEHIND * end, FAR_EVENTS):
        return None
    return round(min(sum(min(saved, end) for saved in seen.saved) / (end * len(seen.saved)), 1.0), 4)


def _behind(
    each: ProjectionOverview, workers: Mapping[MemberId, WorkerSeen], settled: Position | None
) -> list[int | None]:
    """Return how many events are still to come of each partition, if each has as many as the others.

    What was saved may be seconds old where nothing was to be handled: where an owner says that it is
    at the end, all is.
    """
    saved, owners = each.seen.saved, each.seen.owners or [NOBODY] * len(each.seen.saved)
    if settled is None:
        return [None] * len(saved)
    return [
        0 if _is_at_the_end(workers.get(owner), each) else -(-max(settled - position, 0) // len(saved))
        for position, owner in zip(saved, owners, strict=False)
    ]


def _is_at_the_end(worker: WorkerSeen | None, each: ProjectionOverview) -> bool:
    account = None if worker is None else _account(worker)
    told = None if account is None else account.projections.get(each.seen.subscription)
    return told is not None and told.held > 0 and told.behind == 0
