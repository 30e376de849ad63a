"""A status made into gauges. Their names stand in `metric_names`."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias, get_args

from reactive_orch.model import MemberState, WorkerState
from reactive_orch.model.membership import RestingState
from reactive_orch.telemetry import metric_names as m

if TYPE_CHECKING:
    from collections.abc import Iterator

    from reactive_orch.model.status import ProjectionStatus, Status, WorkerStatus
    from reactive_orch.telemetry.metric_names import Metric

Gauges: TypeAlias = "Iterator[tuple[Metric, float, tuple[str, ...]]]"


def of_process(status: Status) -> Gauges:
    """Yield the present values of a process, and those of its workers."""
    yield m.LISTENER_AGE, status.listening_s, ()
    yield m.NOTIFICATION_QUEUE, status.queue_usage, ()
    for log in status.logs:
        yield m.FRONTIER, log.settled or 0, (log.log,)
        yield m.FRONTIER_AGE, log.held_s, (log.log,)
        for kind, number in log.holders.items():
            yield m.FRONTIER_HOLDERS, number, (log.log, kind)
    for name, pool in status.pools.items():
        yield m.POOL_CONNECTIONS, pool.used, (name, "used")
        yield m.POOL_CONNECTIONS, pool.idle, (name, "idle")
    for worker in status.workers:
        yield from _of_worker(worker)
    for each in status.problems:
        yield m.PROBLEM, 1.0, (each.replica_set, each.projection, each.log, each.level, each.code)


def _of_worker(worker: WorkerStatus) -> Gauges:
    replica_set = worker.replica_set
    for state in WorkerState:
        yield m.WORKER_STATE, float(state is worker.state), (replica_set, state.value)
    for projection in worker.projections:
        yield from _of_projection((replica_set, *projection.subscription), projection)
    if worker.seen is None:
        return
    yield m.GENERATION, worker.seen.generation, (replica_set,)
    yield m.GENERATION_SETTLED, worker.seen.complete, (replica_set,)
    for member_state in MemberState:
        yield m.MEMBERS, worker.seen.members.get(member_state, 0), (replica_set, member_state.value)
    yield m.PARTITIONS, worker.seen.partitions, (replica_set,)
    for subscription, unserved in worker.seen.unserved.items():
        yield m.UNSERVED, float(unserved), (replica_set, *subscription)
    for subscription, rests in worker.seen.resting.items():
        for resting_state in get_args(RestingState):
            yield m.RESTING, float(rests == resting_state), (replica_set, *subscription, resting_state)


def _of_projection(labels: tuple[str, ...], projection: ProjectionStatus) -> Gauges:
    yield m.LAG, projection.lag, labels
    yield m.LAG_TIME, projection.lag_s, labels
    yield m.STANDSTILL, projection.standstill_s, labels
    yield m.FAILING_KEYS, projection.failing_keys, labels
    yield m.ONE_AT_A_TIME, float(projection.one_at_a_time), labels
    yield m.OWNED, projection.owned, (*labels, "owned")
    yield m.OWNED, projection.awaited, (*labels, "awaited")
    yield m.OWNED, projection.leaving, (*labels, "leaving")
