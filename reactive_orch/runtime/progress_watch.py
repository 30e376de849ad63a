"""Whether a worker gets on, looked at every second, and whatever else its health is judged by, from memory.

What it means is decided in `core.health`.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from reactive_orch.core.health import Facts, Held, Stall
from reactive_orch.core.standstill import Standing, Standstill
from reactive_orch.model import WorkerState
from reactive_orch.model.reports import Subject
from reactive_orch.runtime.interruptions import Interruptions
from reactive_orch.runtime.membership.turns import LOOK_AFTER_BEATS

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from reactive_orch.model import Partition, Position, Subscription
    from reactive_orch.runtime.handling.runner import Runner
    from reactive_orch.runtime.node import Node

LOOK_OVERDUE_S = 60.0
"""A worker that looks at its replica set so much later than it should does not run any more."""


class ProgressWatch:
    """What stands still on one worker."""

    def __init__(self, replica_set: str, node: Node) -> None:
        """Look at nothing yet."""
        self.turns = Interruptions(node.watchers.emit, replica_set)
        """Of registering, and then of looking at the replica set."""
        self._node = node
        self.stalls: tuple[Stall, ...] = ()
        """What stood still when last looked at, however shortly."""
        self._replica_set = replica_set
        self._standstills: dict[Subscription, Standstill] = {}
        self._unserved: dict[Subscription, float] = {}
        """Since when no worker runs a projection, by the monotonic clock."""
        self._looked_at = time.monotonic()

    def standing_s(self, subscription: Subscription) -> float:
        """Return for how long settled events of a projection have waited without any progress, in seconds."""
        return self._standstills[subscription].longest_s if subscription in self._standstills else 0.0

    def look(
        self, runners: Mapping[Subscription, Runner], state: WorkerState, unserved: Collection[Subscription]
    ) -> None:
        """Look at all runners, at how the other loops fare, and at what no worker runs."""
        now = time.monotonic()
        self._unserved = {each: self._unserved.get(each, now) for each in unserved}
        passed_s, self._looked_at = now - self._looked_at, now
        self._standstills = {each: self._standstills.get(each) or Standstill() for each in runners}
        for each, standstill in self._standstills.items():
            settled = self._node.logs[each.log].settled
            standstill.look(_standings(runners[each], settled, now, state), passed_s)
        self.stalls = (*self._of_loops(state), *self._of_projections(runners))

    def facts(self, runners: Mapping[Subscription, Runner], **known: Any) -> Facts:
        """Return what the worker's health is judged by; `known` are the fields that only the worker knows."""
        now, node = time.monotonic(), self._node
        failing = {each: runner.lanes.failing_since for each, runner in runners.items()}
        return Facts(
            replica_set=self._replica_set,
            age_max_s=LOOK_OVERDUE_S + LOOK_AFTER_BEATS * node.config.heartbeat_s,
            rebalancing_max_s=node.config.rebalance_s,
            listens=node.session.connected,
            unreachable_by=self.turns.cause,
            shortage=node.database.shortage.text,
            unrung=frozenset(log for log, follower in node.logs.items() if follower.ringing.unrung),
            missed=frozenset(log for log, follower in node.logs.items() if follower.ringing.missed),
            held={log: Held(follower.held_s, follower.who_holds) for log, follower in node.logs.items()},
            failing_s={each: now - since for each, since in failing.items() if since is not None},
            resting={each: runner.resting for each, runner in runners.items() if runner.resting},
            failing_keys={each: runner.lanes.failing for each, runner in runners.items()},
            one_at_a_time=frozenset(each for each, runner in runners.items() if runner.serial.on),
            unserved_s={each: now - since for each, since in self._unserved.items()},
            stalls=self.stalls,
            **known,
        )

    def _of_loops(self, state: WorkerState) -> Iterator[Stall]:
        if state is not WorkerState.UNAVAILABLE:
            what = "not registered" if state is WorkerState.STARTING else "the replica set could not be looked at"
            yield from self.turns.stalls(Subject(self._replica_set, "", ""), what)
            for log, follower in self._node.logs.items():
                yield from follower.interruptions.stalls(Subject("", "", log), "the log could not be looked at")

    def _of_projections(self, runners: Mapping[Subscription, Runner]) -> Iterator[Stall]:
        for each, standstill in self._standstills.items():
            if standstill.longest_s > 0:
                of = Subject(self._replica_set, *each)
                yield Stall(of, standstill.longest_s, self._cause(runners[each]))

    def _cause(self, runner: Runner) -> str:
        missing, pool = len(runner.assigned - runner.lanes.held), self._node.database.pools["work"]
        if runner.hindrance or missing:
            return runner.hindrance or f"{missing} partitions could not be taken"
        if pool.used >= pool.most:
            return f"all {pool.used} connections are in use"
        return self._node.database.shortage.text or ""


def _standings(
    runner: Runner, settled: Position | None, now: float, state: WorkerState
) -> Mapping[Partition, Standing]:
    """Return how the partitions that a runner should handle stand.

    In a rebalance the missing ones are excused: others may finish their batches first, and health has a limit for that.
    While the database is away all are excused: the worker's state tells of that.
    """
    paused = state is WorkerState.UNAVAILABLE
    given_up_by_others = paused or (state is WorkerState.REBALANCING and not runner.hindrance)
    missing = Standing(None, waits=True, excused=given_up_by_others)
    found = dict.fromkeys(runner.assigned, missing)
    for lane in runner.lanes:
        excused = (
            paused
            or settled is None
            or runner.resting is not None
            or lane.failing_since is not None
            or lane.in_hand.handler_runs(now)
        )
        for partition, read_to in lane.progress.read_to.items():
            if partition in found:
                waits = settled is None or read_to < settled
                found[partition] = Standing(lane.progress.saved[partition], waits, excused)
    return found
