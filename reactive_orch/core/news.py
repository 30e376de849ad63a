"""For those who watch without a screen: a line for each change between two looks, and one for how all of it stands."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, TypeAlias

from reactive_orch.core.problems import problems
from reactive_orch.model.membership import why

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from reactive_orch.model.overview import (
        GenerationSeen,
        Overview,
        ProjectionOverview,
        ReplicaSetOverview,
        WorkerOverview,
    )
    from reactive_orch.model.problems import Problem

    _Known: TypeAlias = tuple[str, ...]

OVERTAKEN = "overtaken by the next"
"""What a generation is that a newer one has replaced before all had adopted it: it will not be settled any more."""


def news(before: Overview | None, now: Overview) -> Iterator[str]:
    """Yield what is new, what is over, and what is not as it was: problems, generations, workers. At first: all."""
    yield from _of_problems({} if before is None else _by_kind(before), _by_kind(now))
    old = {} if before is None else {each.name: each for each in before.replica_sets}
    for each in now.replica_sets:
        yield from (f"replica set {each.name}: {line}" for line in _of_replica_set(old.pop(each.name, None), each))
    yield from (f"replica set {name}: removed" for name in old)


def summary(now: Overview) -> Iterator[str]:
    """Yield a line for each replica set."""
    for each in now.replica_sets:
        number = each.generation.number if each.generation else 0
        living = sum(worker.seen.connected for worker in each.workers)
        projections = "; ".join(map(_projection, each.projections))
        yield f"replica set {each.name}: generation {number}, workers {living}; {projections or 'no projections'}"
    if not now.replica_sets:
        yield "no replica set has been seen yet"


def _of_problems(old: Mapping[_Known, Problem], new: Mapping[_Known, Problem]) -> Iterator[str]:
    for known in new.keys() - old.keys():
        problem = new[known]
        help_ = f": {problem.command}" if problem.command else ""
        who = f" ({problem.who})" if problem.who else ""
        yield f"{problem.level}: {problem.text}{who}{help_}"
    yield from (f"over: {old[known].text}" for known in old.keys() - new.keys())


def _by_kind(of: Overview) -> dict[_Known, Problem]:
    return {_kind(each): each for each in reversed(problems(of))}


_TOLD_APART_BY_TEXT = {"connections_short"}
"""Of several limits at once, for which the same command helps."""


def _kind(problem: Problem) -> _Known:
    """Return what stays the same while a problem lasts: numbers of events and keys in its text do not."""
    by_command = problem.command and problem.code not in _TOLD_APART_BY_TEXT
    told = [problem.command] if by_command else [*problem.text.split(), problem.who]
    return (problem.code, problem.level, *(word for word in told if not word.isdecimal()))


def _of_replica_set(old: ReplicaSetOverview | None, now: ReplicaSetOverview) -> Iterator[str]:
    known = {} if old is None else {each.number: each for each in old.generations}
    newest = max(known, default=now.generation.number - 1 if now.generation else 0)
    for each in reversed(now.generations):
        settled = each.complete_s is not None
        if each.number > newest or (each.number in known and settled and known[each.number].complete_s is None):
            yield generation(each, now.generation)
    yield from _of_workers({} if old is None else _workers(old), _workers(now))


def generation(seen: GenerationSeen, last: GenerationSeen | None) -> str:
    """Return a generation in a line. `last`: the newest of its replica set."""
    moved = f"{seen.moved} partitions moved, {how_settled(seen, last)}"
    return f"generation {seen.number}: {why(seen.reason, seen.subjects)}, {moved}"


def how_settled(seen: GenerationSeen, last: GenerationSeen | None) -> str:
    """Return how long a generation took until all had adopted it, or that they have not."""
    if seen.complete_s is not None:
        return f"settled in {seen.complete_s * 1000:.0f} ms"
    return "not settled yet" if seen == last else OVERTAKEN


def _workers(of: ReplicaSetOverview) -> dict[int, WorkerOverview]:
    return {each.seen.id: each for each in of.workers}


def _of_workers(old: Mapping[int, WorkerOverview], now: Mapping[int, WorkerOverview]) -> Iterator[str]:
    for each in sorted(chain(old, now.keys() - old.keys())):
        before, after = old.get(each), now.get(each)
        if after is None:
            yield f"worker {each}: gone"
        elif before is None:
            yield f"worker {each}: {worker_state(after)} ({after.seen.name})"
        elif worker_state(before) != worker_state(after):
            yield f"worker {each}: {worker_state(after)}"


def worker_state(of: WorkerOverview) -> str:
    """Return how a worker stands, in a word or two."""
    return of.state if of.seen.connected else "not connected"


def _projection(each: ProjectionOverview) -> str:
    state = "" if each.state == "running" else f"{each.state}, "
    waits = "unknown" if each.lag_events is None else each.lag_events
    return f"{each.seen.subscription.projection}: {state}events wait {waits}, {each.events_per_s:.1f} events/s"
