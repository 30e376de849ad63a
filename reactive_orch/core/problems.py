"""What is not as it should be, by what the tables say, worst first. The words are those of `model.problems`."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING

from reactive_orch.core.connections import in_use, is_short
from reactive_orch.core.overview import is_silent, runs
from reactive_orch.core.remedies import ending, ours
from reactive_orch.model.problems import CODES, LEVELS, Problem, keys, words
from reactive_orch.model.problems import command as helping
from reactive_orch.model.reports import Subject

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from reactive_orch.model import Holder, LogName
    from reactive_orch.model.overview import (
        ConnectionsSeen,
        LogOverview,
        Overview,
        ProjectionOverview,
        ReplicaSetOverview,
        WorkerOverview,
    )
    from reactive_orch.model.problems import Level, Spoils

OF_PROCESS = Subject("", "", "")
"""No replica set."""

HELD_AFTER_S = 30.0
"""A log that a transaction has held for so long is held by one that somebody has forgotten."""
UNSETTLED_AFTER_S = 30.0
"""A generation that members have not adopted for so long waits for a handler, or for a worker that is frozen."""
STANDS_STILL_AFTER_S = 30.0
"""Events that have waited for so long, with none handled of late, wait for a person."""

_WHO_CONNECTS = """psql "$DATABASE_URL" -c 'SELECT usename, application_name FROM pg_stat_activity ORDER BY 1, 2'"""


def problems(overview: Overview) -> list[Problem]:
    """Return all that there are, worst first, the oldest of each level first."""
    found = chain(
        *map(_of_log, overview.logs),
        map(_of_connections, filter(is_short, overview.connections)),
        *map(_of_replica_set, overview.replica_sets),
        *map(_of_workers, overview.replica_sets),
        *(_of_projection(projection, each) for each in overview.replica_sets for projection in each.projections),
    )
    return worst_first(found)


def worst_first(found: Iterable[Problem]) -> list[Problem]:
    """Return problems, the worst first, the oldest of each level first."""
    return sorted(found, key=lambda each: (LEVELS.index(each.level), -(each.age_s or 0.0)))


def made(  # noqa: PLR0913 - its columns
    code: str,
    of: Subject = OF_PROCESS,
    *,
    what: object = "",
    more: str = "",
    level: Level | None = None,
    spoils: Spoils | None = None,
    age_s: float | None = None,
    who: str = "",
    command: str | None = None,
) -> Problem:
    """Return a problem as its code says. `what` belongs into its words, `more` behind them; a command replaces its."""
    usual = CODES[code]
    return Problem(
        level=level or usual.level,
        code=code,
        words=words(code, of.projection, what) + more,
        replica_set=of.replica_set,
        projection=of.projection,
        log=of.log,
        age_s=age_s,
        who=who,
        command=helping(code, of.replica_set, of.projection) if command is None else command,
        spoils=spoils or usual.spoils,
    )


def held(log: LogName, holder: Holder | None, age_s: float) -> Problem:
    """Return the problem of a log that a transaction holds; None: which one is not known."""
    who, command = (str(holder), ending(holder.pid, holder.prepared)) if holder else ("", "")
    return made("log_held", Subject("", "", log), age_s=age_s, who=who, command=command)


def _of_log(log: LogOverview) -> Iterator[Problem]:
    if log.seen.refusal is not None:
        yield made("log_refused", Subject("", "", log.seen.name), what=log.seen.refusal)
    for holder in log.seen.holders:
        if holder.age_s > HELD_AFTER_S:
            yield held(log.seen.name, holder, holder.age_s)


def _of_connections(seen: ConnectionsSeen) -> Problem:
    level: Level = "warn" if seen.used < seen.most else "bad"
    return made("connections_short", what=in_use(seen), level=level, command=_WHO_CONNECTS)


def _of_replica_set(each: ReplicaSetOverview) -> Iterator[Problem]:
    of = Subject(each.name, "", "")
    if each.projections and not _anybody_lives(each):
        most = max(each.projections, key=_may_wait)
        waits = most.lag_events != 0
        level: Level = "bad" if waits else "note"
        yield made("no_workers", of, more=f", and events wait: {_waiting(most)}" if waits else "", level=level)
    generation = each.generation
    if generation is not None and generation.complete_s is None and generation.age_s > UNSETTLED_AFTER_S:
        yield made("unsettled", of, what=generation.number, age_s=generation.age_s)


def _of_workers(each: ReplicaSetOverview) -> Iterator[Problem]:
    of = Subject(each.name, "", "")
    workers = [worker.seen for worker in each.workers]
    gone = [seen for seen in workers if not seen.connected and seen.stale]
    if gone:
        what = f"worker {gone[0].id} is" if len(gone) == 1 else f"{len(gone)} workers are"
        age_s = max(seen.heartbeat_age_s for seen in gone)
        yield made("worker_gone", of, what=what, age_s=age_s, who=", ".join(seen.name for seen in gone))
    for seen in workers:
        if seen.connected and is_silent(seen):
            yield made("worker_silent", of, what=seen.id, age_s=seen.heartbeat_age_s, who=seen.name)


def _of_projection(projection: ProjectionOverview, among: ReplicaSetOverview) -> Iterator[Problem]:
    seen = projection.seen
    of = Subject(among.name, *seen.subscription)
    if seen.rest is not None:
        reason = " ".join(seen.rest.reason.split())
        more = f": {reason}" if reason else ""
        shows_nothing = seen.rest.state == "halted" and not seen.failing_keys
        helps = ours("resume", replica_set=among.name, projection=of.projection) if shows_nothing else None
        yield made(seen.rest.state, of, more=more, age_s=seen.rest.age_s, who=seen.rest.by, command=helps)
    elif not seen.served and seen.proposed is None and _anybody_lives(among):
        # At once, though a worker's health waits for `UNSERVED_AFTER_S`: the tables do not say since when it is so.
        yield made("unserved", of, age_s=projection.lag_s or None)
    elif _stands_still(projection, among):
        yield made("stands_still", of, more=f": events wait: {_waiting(projection)}", age_s=_oldest_s(projection))
    elif (stuck := _stuck(projection, among)) is not None:
        more = f" in some partitions of worker {stuck.seen.id}: events wait there, others are handled"
        yield made("stands_still", of, more=more, age_s=_standstill_s(stuck, projection), who=stuck.seen.name)
    if seen.proposed is not None:
        by_nobody = " and run by no worker" if not seen.served else ""
        yield made("refused", of, more=f"{by_nobody}; a worker would run it with {seen.proposed}")
    if seen.failing_keys:
        # A worker's health warns in either case: it does not know which are parked.
        level: Level = "warn" if seen.parked_keys else "note"
        yield made("keys_wait", of, what=keys(seen.failing_keys), level=level, age_s=seen.failing_s)
    if seen.serial_until is not None:
        yield made("deadlocks", of)


def compared(before: Iterable[Problem], now: Iterable[Problem]) -> tuple[list[Problem], list[Problem]]:
    """Return which problems have begun, and which have ended, as they were last seen."""
    were, are = {each.key: each for each in before}, {each.key: each for each in now}
    began = [each for key, each in are.items() if key not in were]
    return began, [each for key, each in were.items() if key not in are]


def _anybody_lives(of: ReplicaSetOverview) -> bool:
    return any(worker.seen.connected for worker in of.workers)


def _stands_still(projection: ProjectionOverview, of: ReplicaSetOverview) -> bool:
    """Tell whether nothing of a projection is handled, although its workers have had the time to begin."""
    waits = projection.lag_events != 0 and _oldest_s(projection) > STANDS_STILL_AFTER_S
    had_time = of.generation is not None and of.generation.age_s > STANDS_STILL_AFTER_S
    still = projection.events_per_s < 1 / STANDS_STILL_AFTER_S
    return waits and had_time and still and projection.served and _is_sure(projection, of)


def _stuck(projection: ProjectionOverview, of: ReplicaSetOverview) -> WorkerOverview | None:
    """Return the worker in some of whose partitions nothing has been handled for longest, by its own account."""
    still = [
        worker
        for worker in of.workers
        if not is_silent(worker.seen) and _standstill_s(worker, projection) > STANDS_STILL_AFTER_S
    ]
    return max(still, key=lambda worker: _standstill_s(worker, projection), default=None)


def _standstill_s(worker: WorkerOverview, projection: ProjectionOverview) -> float:
    account = worker.seen.account
    return account.standstills.get(projection.seen.subscription, 0.0) if account else 0.0


def _is_sure(projection: ProjectionOverview, of: ReplicaSetOverview) -> bool:
    """Tell whether a worker has said how fast a projection is, or all that run it have been silent for long."""
    running = [worker.seen for worker in of.workers if runs(projection.seen, worker.seen)]
    return any(not is_silent(seen) or seen.heartbeat_age_s > STANDS_STILL_AFTER_S for seen in running)


def _oldest_s(projection: ProjectionOverview) -> float:
    """Return for how long events have waited, those included of which it is not known whether they are settled."""
    return (projection.seen.oldest_s if projection.lag_s is None else projection.lag_s) or 0.0


def _may_wait(projection: ProjectionOverview) -> tuple[bool, int]:
    return projection.lag_events is None, projection.lag_events or 0


def _waiting(projection: ProjectionOverview) -> str:
    """Return how many events wait. Whether that is known, or counted to the log's end, changes with every append."""
    most = projection.lag_most if projection.lag_events is None else projection.lag_events
    return "nobody knows how many" if most is None else f"at most {most}"
