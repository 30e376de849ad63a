"""The present values that a process shows when its metrics are read: from memory, never from the database."""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING, TypeAlias

from reactive_orch.model import MemberState, WorkerState
from reactive_orch.telemetry import metric_names as m

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from reactive_orch.model import Position, Snapshot
    from reactive_orch.postgres.database import Database
    from reactive_orch.runtime.handling.runner import Runner
    from reactive_orch.runtime.membership.session import Session
    from reactive_orch.runtime.progress_watch import ProgressWatch
    from reactive_orch.runtime.reading.follower import LogFollower
    from reactive_orch.telemetry.metric_names import Metric

Gauges: TypeAlias = "Iterator[tuple[Metric, float, tuple[str, ...]]]"


def of_process(database: Database, session: Session, follower: LogFollower) -> Gauges:
    """Yield what all workers of a process share."""
    yield m.LISTENER_AGE, 0.0 if session.since is None else time.monotonic() - session.since, ()
    yield m.NOTIFICATION_QUEUE, session.queue_usage, ()
    yield m.FRONTIER, follower.settled or 0, ()
    yield m.FRONTIER_AGE, follower.held_s, ()
    for kind, number in follower.holders.items():
        yield m.FRONTIER_HOLDERS, number, (kind,)
    for name, pool in database.pools.items():
        yield m.POOL_CONNECTIONS, pool.get_size() - pool.get_idle_size(), (name, "used")
        yield m.POOL_CONNECTIONS, pool.get_idle_size(), (name, "idle")


def of_worker(replica_set: str, state: WorkerState, snapshot: Snapshot | None, complete: int) -> Gauges:
    """Yield what a worker knows of its replica set. `complete`: the last generation it has seen complete."""
    for each in WorkerState:
        yield m.WORKER_STATE, float(each is state), (replica_set, each.value)
    if snapshot is None:
        return
    yield m.GENERATION, snapshot.generation, (replica_set,)
    yield m.GENERATION_SETTLED, complete, (replica_set,)
    states = Counter(member.state for member in snapshot.members)
    for member_state in MemberState:
        yield m.MEMBERS, states[member_state], (replica_set, member_state.value)
    yield m.PARTITIONS, sum(map(len, snapshot.owners.values())), (replica_set,)


def of_runners(
    replica_set: str, runners: Mapping[str, Runner], settled: Position | None, watch: ProgressWatch
) -> Gauges:
    """Yield how far a worker's projections are, and whether they get on."""
    for name, runner in list(runners.items()):
        positions, age_s = runner.lanes.lag(settled or 0)
        yield m.LAG, positions, (replica_set, name)
        yield m.LAG_TIME, age_s, (replica_set, name)
        yield m.STANDSTILL, watch.standing_s(name), (replica_set, name)
        for status, number in runner.statuses().items():
            yield m.OWNED, number, (replica_set, name, status)
