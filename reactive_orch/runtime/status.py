"""How a process stands: from memory, never from the database."""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING

from reactive_orch.core import generation
from reactive_orch.model.status import LogStatus, PoolStatus, ReplicaSetStatus, Status, WorkerStatus

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from reactive_orch.model import LogName, Snapshot
    from reactive_orch.model.problems import Problem
    from reactive_orch.postgres.database import Database
    from reactive_orch.runtime.membership.session import Session
    from reactive_orch.runtime.reading.follower import LogFollower


def of_process(
    database: Database,
    session: Session,
    logs: Mapping[LogName, LogFollower],
    workers: Iterable[WorkerStatus],
    problems: tuple[Problem, ...],
) -> Status:
    """Return what all workers of a process share, and what each has."""
    return Status(
        listening_s=0.0 if session.since is None else time.monotonic() - session.since,
        queue_usage=session.queue_usage,
        logs=tuple(LogStatus(each.log.name, each.settled, each.held_s, each.holders) for each in logs.values()),
        pools={name: PoolStatus(pool.used, pool.idle) for name, pool in database.pools.items()},
        workers=tuple(workers),
        problems=problems,
    )


def of_replica_set(snapshot: Snapshot | None, complete: int) -> ReplicaSetStatus | None:
    """Return what a worker knows of its replica set. `complete`: the last generation it has seen complete."""
    if snapshot is None:
        return None
    unserved = generation.unserved(snapshot)
    return ReplicaSetStatus(
        generation=snapshot.generation,
        complete=complete,
        members=Counter(member.state for member in snapshot.members),
        partitions=sum(map(len, snapshot.owners.values())),
        unserved={each: each in unserved for each in snapshot.epochs},
        resting={each: snapshot.resting[each].state if each in snapshot.resting else None for each in snapshot.epochs},
    )
