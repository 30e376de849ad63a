"""From what one look at the database has shown: how far each projection is, and how fast."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Literal

from reactive_orch.core.rate import LEAST_PER_S
from reactive_orch.model import NOBODY
from reactive_orch.model.account import ProjectionAccount
from reactive_orch.model.overview import (
    LogOverview,
    Overview,
    ProjectionOverview,
    ReplicaSetOverview,
    WorkerOverview,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from reactive_orch.model import MemberId, Position
    from reactive_orch.model.overview import LogSeen, ProjectionSeen, Seen, WorkerSeen


def overview(seen: Seen) -> Overview:
    """Return what the rows mean together."""
    telling = [worker for worker in seen.workers if _tells(worker)]
    logs = [_log(log, telling, seen.projections) for log in seen.logs]
    return Overview(
        at=seen.at,
        logs=logs,
        connections=seen.connections,
        replica_sets=[_replica_set(seen, name, {each.seen.name: each for each in logs}) for name in seen.generations],
    )


SILENT_AFTER = 2 / 3
"""Of the time after which it is removed, which is at least three heartbeats: a worker that has its lock, and has not
sent two of them, is frozen, or its event loop is blocked. What it has said before says nothing of now."""


def is_silent(worker: WorkerSeen) -> bool:
    """Tell whether a worker has missed two heartbeats."""
    return worker.heartbeat_age_s > SILENT_AFTER * worker.stale_after_s


def _tells(worker: WorkerSeen) -> bool:
    return worker.connected and not is_silent(worker)


def _log(log: LogSeen, telling: Iterable[WorkerSeen], projections: Iterable[ProjectionSeen]) -> LogOverview:
    told = [account for worker in telling if worker.account and (account := worker.account.logs.get(log.name))]
    saved = [position for each in projections if each.subscription.log == log.name for position in each.saved]
    known = [each.settled for each in told if each.settled is not None]
    # What was saved was settled: what has been since, only a worker that lives knows.
    settled = max(known + list(saved)) if known else None
    if not log.holders:  # whatever was drawn is committed, or gone
        settled = log.head
    if log.refusal is None:  # the head was looked at first, and what is settled or saved by now was drawn
        log = replace(log, head=max([log.head, *known, *saved]))
    rate = max((each.events_per_s for each in told), default=None)
    return LogOverview(seen=log, settled=settled, events_per_s=rate, needed_after=_needed_after(log))


def _needed_after(log: LogSeen) -> Position | None:
    if log.slowest is None or log.refusal is not None:  # positions may be those of another log
        return None
    return log.slowest if log.first_waiting is None else min(log.slowest, log.first_waiting - 1)


def _replica_set(seen: Seen, name: str, logs: Mapping[str, LogOverview]) -> ReplicaSetOverview:
    workers = [worker for worker in seen.workers if worker.replica_set == name]
    projections = [each for each in seen.projections if each.replica_set == name]
    owned = Counter(owner for each in projections for owner in each.owners)
    return ReplicaSetOverview(
        name=name,
        generation=seen.generations[name],
        workers=[
            WorkerOverview(
                seen=each,
                state=each.account.state if each.account else each.state,
                partitions=owned[each.id],
                uptime_s=each.account.uptime_s + each.heartbeat_age_s if each.account else None,
            )
            for each in workers
        ],
        projections=[_projection(each, workers, logs.get(each.subscription.log)) for each in projections],
        before=seen.before.get(name, ()),
    )


def _projection(seen: ProjectionSeen, workers: Sequence[WorkerSeen], log: LogOverview | None) -> ProjectionOverview:
    told = {worker.id: worker for worker in workers if _tells(worker) and _knows(worker, seen)}
    settled = log.settled if log is not None else None
    lag_events, lag_s = _lag(seen, told, settled)
    told_lag_events, told_lag_s = _lag(seen, told, settled, as_told=True)
    events_per_s = sum(_of(worker, seen).events_per_s for worker in told.values())
    served = seen.served and any(map(partial(runs, seen), workers))
    return ProjectionOverview(
        seen=seen,
        served=served,
        state=_state(seen, served=served),
        lag_events=lag_events,
        lag_most=max(log.seen.head - min(seen.saved, default=0), 0) if log is not None else None,
        lag_s=lag_s,
        told_lag_events=told_lag_events,
        told_lag_s=told_lag_s,
        events_per_s=events_per_s,
        eta_s=None
        if seen.rest is not None
        else _eta_s(lag_events, events_per_s, events_per_s - ((log.events_per_s if log is not None else None) or 0.0)),
    )


def runs(seen: ProjectionSeen, worker: WorkerSeen) -> bool:
    """Tell whether a worker of its replica set lives, and runs a projection if any does."""
    return worker.connected and seen.subscription.projection not in worker.lacks


def _state(
    seen: ProjectionSeen, *, served: bool
) -> Literal["running", "paused", "halted", "suspended", "refused", "unserved"]:
    if seen.rest is not None:
        return seen.rest.state
    if served:
        return "running"
    return "refused" if seen.proposed is not None else "unserved"


def _of(worker: WorkerSeen, seen: ProjectionSeen) -> ProjectionAccount:
    """Return what a worker tells of a projection."""
    told = worker.account.projections.get(seen.subscription) if worker.account else None
    return told or ProjectionAccount(0, 0, 0.0, 0.0)


def _knows(worker: WorkerSeen, seen: ProjectionSeen) -> bool:
    """Tell whether a worker has partitions of a projection, and knew how far their log goes when it told of them."""
    log = worker.account.logs.get(seen.subscription.log) if worker.account else None
    return log is not None and log.settled is not None and _of(worker, seen).held > 0


def _lag(
    seen: ProjectionSeen, told: Mapping[MemberId, WorkerSeen], settled: Position | None, *, as_told: bool = False
) -> tuple[int | None, float | None]:
    """Return the events that are still to come, and the age of the oldest. Each partition counts once, by its owner.

    Workers tell of those that they have, as they were at their heartbeat: what was settled since may wait as well, and
    what waited then may wait still; unless it is to be `as_told`. Of the others it is known up to where they have been
    saved.
    """
    owners = seen.owners or [NOBODY] * len(seen.saved)
    silent = [saved for owner, saved in zip(owners, seen.saved, strict=False) if owner not in told]
    if seen.oldest_s is None:  # there is no event behind what has been saved
        return 0, 0.0
    if settled is None:
        return None, None
    untold = sum(max(settled - saved, 0) for saved in silent)
    behind, ages = float(untold), [seen.oldest_s] if untold else []
    for id_, worker in told.items():
        account = _of(worker, seen)
        since = 0 if as_told else _settled_since(worker, seen, settled)
        behind += (account.behind / account.held + since) * owners.count(id_)
        if account.behind or since:
            ages.append(account.lag_s + (0 if as_told else worker.heartbeat_age_s))
    events = -int(-behind // max(len(seen.saved), 1))
    return (events, max(ages, default=0.0)) if events else (0, 0.0)


def _settled_since(worker: WorkerSeen, seen: ProjectionSeen, settled: Position) -> Position:
    """Return how much has been settled since a worker told how far it is."""
    log = worker.account.logs.get(seen.subscription.log) if worker.account else None
    return max(settled - log.settled, 0) if log is not None and log.settled is not None else 0


_NOISE = 0.05
"""Of the rate: who keeps up gains now and then, as both rates are of the last seconds, each of its own."""


def _eta_s(lag_events: int | None, events_per_s: float, gains_per_s: float) -> float | None:
    if lag_events is None:
        return None
    if not lag_events:
        return 0.0
    return lag_events / gains_per_s if gains_per_s >= max(LEAST_PER_S, _NOISE * events_per_s) else None
