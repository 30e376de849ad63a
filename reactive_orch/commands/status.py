"""`status`: is it done, and is all well? Problems first; then the logs, replica sets, workers and projections."""

from __future__ import annotations

import json
from functools import partial
from itertools import chain, pairwise
from typing import TYPE_CHECKING

from reactive_orch.commands.command import Command, connected, monitors
from reactive_orch.commands.problems import NO_PROBLEMS, lines_of, one_line
from reactive_orch.commands.terminal import GOOD, HEADING, UNITS, Styled, count, cut, show, shown_time
from reactive_orch.core.news import how_settled
from reactive_orch.core.overview import overview
from reactive_orch.core.overview_json import as_json, since
from reactive_orch.core.problems import problems
from reactive_orch.errors import UnsafeLog
from reactive_orch.model.membership import why
from reactive_orch.postgres import membership, migrations
from reactive_orch.postgres import overview as looking
from reactive_orch.postgres.projections import demand_replica_set

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from reactive_orch.model.overview import (
        GenerationSeen,
        LogOverview,
        Overview,
        ProjectionOverview,
        ProjectionSeen,
        ReplicaSetOverview,
        WorkerOverview,
    )

ERROR_WIDTH = 100
SHARED_ROWS = "give events that share rows one partition key, or write rows sorted, in one statement a batch"


async def _status(options: argparse.Namespace, url: str) -> None:
    async with connected(url) as connection:
        await migrations.check(connection)
        if options.replica_set is not None:
            demand_replica_set(options.replica_set, await membership.replica_sets(connection))
        seen = await looking.look(connection, options.replica_set)
    shown = overview(seen)
    found = problems(shown)
    if options.json:
        print(json.dumps(as_json(shown, found, partial(since, seen.at))))
    else:
        problem_lines = lines_of(found, shown.at, options.database_url) if found else [Styled(NO_PROBLEMS, GOOD)]
        show(chain(problem_lines, _lines(shown)))
    for log in seen.logs:
        if log.refusal is not None:
            raise UnsafeLog(log.refusal)


def _lines(shown: Overview) -> Iterator[str]:
    for log in shown.logs:
        yield from _log(log)
    heads = {log.seen.name: log.seen.head for log in shown.logs}
    for each in shown.replica_sets:
        yield Styled(f"replica set {each.name}: {_generation(each.generation)}", HEADING)
        yield from (f"  {_worker(worker)}" for worker in each.workers)
        for projection in each.projections:
            yield from _projection(projection, heads.get(projection.seen.subscription.log), each)


def _log(log: LogOverview) -> Iterator[str]:
    settled = "unknown" if log.settled is None else log.settled
    rate = "" if log.events_per_s is None else f", {log.events_per_s:.1f} events/s"
    head = f"{log.seen.partitions} partitions, last position {log.seen.head}, settled {settled}"
    may_go = f"; may be deleted up to position {log.needed_after}" if log.needed_after else ""
    yield Styled(f"log {log.seen.name}: {head}{rate}{may_go}", HEADING)
    yield from (f"  held by {one_line(str(holder))}" for holder in log.seen.holders)


def _generation(seen: GenerationSeen | None) -> str:
    if seen is None:
        return "generation 0"
    moved = f"{seen.moved} partitions moved; {how_settled(seen, seen)}"
    return f"generation {seen.number} ({why(seen.reason, seen.subjects)}; {moved}), {_lasting(seen.age_s)} old"


def _worker(worker: WorkerOverview) -> str:
    seen = worker.seen
    lives = "connected" if seen.connected else "not connected"
    without = f", without {', '.join(seen.lacks)}" if seen.lacks else ""
    version = f", version {seen.account.version}" if seen.account else ""
    up = f", up {_lasting(worker.uptime_s)}" if worker.uptime_s is not None else ""
    return (
        f"worker {seen.id} {worker.state}, {lives}, heartbeat {seen.heartbeat_age_s:.1f} s ago, "
        f"{worker.partitions} partitions{up}{version}{without} ({seen.name})"
    )


def _projection(shown: ProjectionOverview, head: int | None, of: ReplicaSetOverview) -> Iterator[str]:
    seen = shown.seen
    stands = f"{shown.state}, {_lag(shown)}; {_saved(seen, head)}{_failing(seen)}"
    yield f"  projection {seen.subscription.projection}: {stands}"
    if seen.last_error is not None:
        yield f"    last error: {cut(one_line(seen.last_error), ERROR_WIDTH)}"
    if seen.serial_until is not None:
        until = shown_time(seen.serial_until)
        yield f"    handlers deadlock: batches go one at a time until {until}: {SHARED_ROWS}"
    if seen.rest is not None:
        rest = seen.rest
        why_so = f": {one_line(rest.reason)}" if rest.reason else ""
        again = f"; tried again at {shown_time(rest.tried_at)}" if rest.tried_at else ""
        yield f"    {rest.state} since {shown_time(rest.since)} by {one_line(rest.by)}{why_so}{again}"
    if not shown.served:
        lives = any(worker.seen.connected for worker in of.workers)
        yield f"    unserved: no worker {'runs it' if lives else 'lives'}"
    yield from (f"    {line}" for line in _traits(seen))


def _lag(shown: ProjectionOverview) -> str:
    if shown.lag_events is None:
        most = "" if shown.lag_most is None else f", at most {shown.lag_most}"
        return f"how many events wait is not known{most}"
    if not shown.lag_events:
        return "nothing else waits" if shown.seen.waiting_events else "nothing waits"
    waits = f"{count(shown.lag_events, 'event')} {'waits' if shown.lag_events == 1 else 'wait'}"
    oldest = f", the oldest for {_lasting(shown.lag_s)}" if shown.lag_s is not None else ""
    left = f", about {_lasting(shown.eta_s)} left" if shown.eta_s is not None else ""
    return f"{waits}{oldest}, {shown.events_per_s:.1f} events/s{left}"


def _saved(seen: ProjectionSeen, head: int | None) -> str:
    low, high = min(seen.saved, default=0), max(seen.saved, default=0)
    return f"saved up to {low} … {high} of {'?' if head is None else head} (log {seen.subscription.log})"


def _failing(seen: ProjectionSeen) -> str:
    if not seen.failing_keys:
        return ""
    return f"; failing keys: {seen.failing_keys}, events that wait: {seen.waiting_events} (see dead-letters)"


def _traits(seen: ProjectionSeen) -> Iterator[str]:
    if seen.proposed is not None:
        whose = "a worker came with another filter" if seen.served else "a worker would run it with its filter"
        yield f"refused: {whose}, which rewind --to keep accepts: {seen.proposed}"
    if seen.start != "beginning":
        yield f"began behind position {seen.start_position} (start: {seen.start})"
    if seen.replays_to is not None:
        yield f"replays events up to position {seen.replays_to}"
    if seen.leaves_replayed_out:
        yield "replayed events are left out"
    if seen.exclusive:
        yield "exclusive: one worker has all its partitions"


def _lasting(seconds: float) -> str:
    """Return a time in its two largest units."""
    for (unit, size), (smaller, its) in pairwise(UNITS):
        if seconds >= size:
            rest = int(seconds % size // its)
            return f"{int(seconds // size)} {unit}" + (f" {rest} {smaller}" if rest else "")
    return f"{seconds:.1f} s"


def _status_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--replica-set", metavar="NAME", help="only this one")
    parser.add_argument("--json", action="store_true", help="for programs")


STATUS = Command(
    "is it done, and is all well? logs, replica sets, workers and projections",
    _status_arguments,
    _status,
    purpose=monitors,
)
