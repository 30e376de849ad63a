"""The shape in which programs get it: `status --json`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from reactive_orch.model import Holder
    from reactive_orch.model.overview import (
        GenerationSeen,
        LogOverview,
        Overview,
        ProjectionOverview,
        ReplicaSetOverview,
        WorkerOverview,
    )
    from reactive_orch.model.problems import Problem


def as_json(overview: Overview, problems: Sequence[Problem], since: Callable[[float], str]) -> dict[str, Any]:
    """Return what is to be written as JSON. `since` tells when something began that is so many seconds old."""
    return {
        "problems": [problem_as_json(each, since) for each in problems],
        "logs": [_log(each) for each in overview.logs],
        "replica_sets": [_replica_set(each) for each in overview.replica_sets],
    }


def since(at: datetime, age_s: float) -> str:
    """Return when something began that was so many seconds old at a time."""
    return begun(at, age_s).isoformat()


def begun(at: datetime, age_s: float) -> datetime:
    """Return the second in which it began: the age is told by another clock, perhaps, and is to say the same again."""
    return at.fromtimestamp(round(at.timestamp() - age_s), at.tzinfo)


def problem_as_json(each: Problem, since: Callable[[float], str]) -> dict[str, Any]:
    """Return a problem as it is to be written as JSON; `since` as above."""
    return {
        "level": each.level,
        "code": each.code,
        "text": each.text,
        "replica_set": each.replica_set or None,
        "projection": each.projection or None,
        "since": None if each.age_s is None else since(each.age_s),
        "who": each.who or None,
        "command": each.command or None,
    }


def _log(each: LogOverview) -> dict[str, Any]:
    return {
        "name": each.seen.name,
        "head": each.seen.head,
        "settled": each.settled,
        "partitions": each.seen.partitions,
        "events_per_s": each.events_per_s,
        "deletable_to": each.needed_after,
        "held_by": [holder_as_json(holder) for holder in each.seen.holders],
    }


def holder_as_json(holder: Holder) -> dict[str, Any]:
    """Return who holds a log as it is to be written as JSON."""
    return {
        "pid": holder.pid,
        "prepared": holder.prepared,
        "application": holder.application,
        "state": holder.state,
        "age_s": round(holder.age_s, 3),
        "query": holder.query,
    }


def _replica_set(each: ReplicaSetOverview) -> dict[str, Any]:
    return {
        "name": each.name,
        "generation": None if each.generation is None else _generation(each.generation),
        "workers": list(map(_worker, each.workers)),
        "projections": list(map(_projection, each.projections)),
    }


def _generation(seen: GenerationSeen) -> dict[str, Any]:
    return {
        "number": seen.number,
        "reason": seen.reason,
        "age_s": round(seen.age_s, 3),
        "moved": seen.moved,
        "complete_ms": None if seen.complete_s is None else round(seen.complete_s * 1000, 1),
    }


def named_process(name: str) -> tuple[str, int | None]:
    """Return the host and the process id of which a process's name consists; None where it has none."""
    host, _, rest = name.partition(":")
    pid = rest.partition(":")[0]
    return host, int(pid) if pid.isdecimal() else None


def _worker(each: WorkerOverview) -> dict[str, Any]:
    host, pid = named_process(each.seen.name)
    return {
        "id": each.seen.id,
        "name": each.seen.name,
        "host": host,
        "pid": pid,
        "state": each.state,
        "connected": each.seen.connected,
        "heartbeat_age_s": round(each.seen.heartbeat_age_s, 3),
        "partitions": each.partitions,
        "version": each.seen.account.version if each.seen.account else None,
        "uptime_s": None if each.uptime_s is None else round(each.uptime_s, 1),
    }


def _projection(each: ProjectionOverview) -> dict[str, Any]:
    seen = each.seen
    return {
        "name": seen.subscription.projection,
        "version": 1,
        "log": seen.subscription.log,
        "state": each.state,
        "lag_events": each.lag_events,
        "lag_s": None if each.lag_s is None else round(each.lag_s, 3),
        "events_per_s": round(each.events_per_s, 1),
        "eta_s": None if each.eta_s is None else round(each.eta_s, 1),
        "failing_keys": seen.failing_keys,
        "waiting_events": seen.waiting_events,
        "parked_keys": seen.parked_keys,
        "parked_events": seen.parked_events,
        "last_error": seen.last_error,
    }
