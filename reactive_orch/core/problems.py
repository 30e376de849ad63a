"""What is not as it should be, worst first, in the words that status, health and whoever watches use."""

from __future__ import annotations

from itertools import chain
from shlex import quote
from typing import TYPE_CHECKING

from reactive_orch.core.overview import is_silent
from reactive_orch.model.overview import Problem

if TYPE_CHECKING:
    from collections.abc import Iterator

    from reactive_orch.model import Holder
    from reactive_orch.model.overview import (
        Level,
        LogOverview,
        Overview,
        ProjectionOverview,
        ReplicaSetOverview,
        WorkerOverview,
    )

HELD_AFTER_S = 30.0
"""A log that a transaction has held for so long is held by one that somebody has forgotten."""
UNSETTLED_AFTER_S = 30.0
"""A generation that members have not adopted for so long waits for a handler, or for a worker that is frozen."""
STANDS_STILL_AFTER_S = 30.0
"""Events that have waited for so long, with none handled of late, wait for a person."""

_LEVELS: tuple[Level, ...] = ("bad", "warn", "note")
_RESTING: dict[str, Level] = {"halted": "bad", "suspended": "warn", "paused": "note"}
_COMMAND = "python -m reactive_orch"
_PSQL = 'psql "$DATABASE_URL"'

LOG_HELD = "the log cannot be read on: a transaction holds it"


def rests(projection: str, state: str) -> str:
    """Return the words for a projection that does not run."""
    return f"projection {projection} is {state}"


def keys_wait(projection: str, keys: int) -> str:
    """Return the words for keys of which an event has failed."""
    return f"projection {projection}: {keys} {'key waits' if keys == 1 else 'keys wait'} behind a failed event"


def unserved(projection: str) -> str:
    """Return the words for a projection that nobody runs."""
    return f"projection {projection} is run by no worker"


def problems(overview: Overview) -> list[Problem]:
    """Return all that there are, worst first, the oldest of each level first."""
    found = chain(
        *map(_of_log, overview.logs),
        *map(_of_replica_set, overview.replica_sets),
        *(_of_worker(worker) for each in overview.replica_sets for worker in each.workers),
        *(_of_projection(projection, each) for each in overview.replica_sets for projection in each.projections),
    )
    return sorted(found, key=lambda each: (_LEVELS.index(each.level), -(each.age_s or 0.0)))


def _problem(  # noqa: PLR0913 - its columns
    level: Level, code: str, text: str, *, age_s: float | None = None, who: str = "", command: str = ""
) -> Problem:
    return Problem(level=level, code=code, text=text, age_s=age_s, who=who, command=command)


def _of_log(log: LogOverview) -> Iterator[Problem]:
    if log.seen.refusal is not None:
        yield _problem("bad", "log_refused", log.seen.refusal)
    for holder in log.seen.holders:
        if holder.age_s > HELD_AFTER_S:
            who, command = str(holder), _ending(holder)
            yield _problem("bad", "log_held", LOG_HELD, age_s=holder.age_s, who=who, command=command)


def _ending(holder: Holder) -> str:
    if holder.pid is not None:
        return f"{_PSQL} -c 'SELECT pg_terminate_backend({holder.pid})'"
    name = (holder.prepared or "").replace("'", "''")
    statement = f"ROLLBACK PREPARED '{name}'"
    return f"{_PSQL} -c {quote(statement)}"


def _of_replica_set(each: ReplicaSetOverview) -> Iterator[Problem]:
    if each.projections and not _anybody_lives(each):
        lags = [projection.lag_events for projection in each.projections]
        waits = "nobody knows how many" if None in lags else max(filter(None, lags), default=0)
        text = f"replica set {each.name}: no worker lives{f', and events wait: {waits}' if waits else ''}"
        yield _problem("bad" if waits else "note", "no_workers", text)
    generation = each.generation
    if generation is not None and generation.complete_s is None and generation.age_s > UNSETTLED_AFTER_S:
        text = f"replica set {each.name}: generation {generation.number} is not settled yet"
        command = f"{_COMMAND} trace {_option('--replica-set', each.name)}"
        yield _problem("warn", "unsettled", text, age_s=generation.age_s, command=command)


def _of_worker(worker: WorkerOverview) -> Iterator[Problem]:
    seen = worker.seen
    if not seen.connected and seen.stale:
        text = f"replica set {seen.replica_set}: worker {seen.id} is gone, and nobody is there to remove it"
        yield _problem("note", "worker_gone", text, age_s=seen.heartbeat_age_s, who=seen.name)
    elif seen.connected and is_silent(seen):
        text = f"replica set {seen.replica_set}: worker {seen.id} says nothing, although it is connected"
        yield _problem("warn", "worker_silent", text, age_s=seen.heartbeat_age_s, who=seen.name)


def _of_projection(projection: ProjectionOverview, of: ReplicaSetOverview) -> Iterator[Problem]:
    seen, name = projection.seen, projection.seen.subscription.projection
    options = f"{_option('--replica-set', of.name)} {_option('--projection', name)}"
    where = f"replica set {of.name}: "
    if seen.rest is not None:
        reason = " ".join(seen.rest.reason.split())
        text = f"{where}{rests(name, seen.rest.state)}{f': {reason}' if reason else ''}"
        level, command = _RESTING[seen.rest.state], f"{_COMMAND} resume {options}"
        yield _problem(level, seen.rest.state, text, age_s=seen.rest.age_s, who=seen.rest.by, command=command)
    elif not seen.served and seen.proposed is None and of.workers:
        yield _problem("warn", "unserved", where + unserved(name), age_s=projection.lag_s or None)
    elif _stands_still(projection, of):
        text = f"{where}projection {name} does not get on: events wait: {projection.lag_events}"
        yield _problem("bad", "stands_still", text, age_s=projection.lag_s)
    if seen.proposed is not None:
        text = f"{where}projection {name}: a worker was refused, as it came with another filter: {seen.proposed}"
        yield _problem("warn", "refused", text, command=f"{_COMMAND} rewind {options} --to keep")
    if seen.failing_keys:
        level = "warn" if seen.parked_keys else "note"
        command = f"{_COMMAND} dead-letters show {options}"
        text = where + keys_wait(name, seen.failing_keys)
        yield _problem(level, "keys_wait", text, age_s=seen.failing_s, command=command)
    if seen.serial_until is not None:
        text = f"{where}projection {name}: handlers deadlock, batches go one at a time; see docs/shared-rows.md"
        yield _problem("note", "deadlocks", text)


def _option(name: str, value: str) -> str:
    """Return an option as a shell takes it; a value that begins as an option does is not taken for one."""
    return f"{name}={quote(value)}" if value.startswith("-") else f"{name} {quote(value)}"


def _anybody_lives(of: ReplicaSetOverview) -> bool:
    return any(worker.seen.connected for worker in of.workers)


def _stands_still(projection: ProjectionOverview, of: ReplicaSetOverview) -> bool:
    """Tell whether nothing of a projection is handled, although its workers have had the time to begin."""
    waits = bool(projection.lag_events) and (projection.lag_s or 0.0) > STANDS_STILL_AFTER_S
    had_time = of.generation is not None and of.generation.age_s > STANDS_STILL_AFTER_S
    told = any(worker.seen.connected and not is_silent(worker.seen) for worker in of.workers)
    return waits and had_time and told and projection.seen.served and projection.events_per_s < 1 / STANDS_STILL_AFTER_S
