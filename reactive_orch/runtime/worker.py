"""What an application holds: one worker of one replica set, from its registration to its last word."""

from __future__ import annotations

import time
from itertools import chain
from typing import TYPE_CHECKING

from reactive_orch.core import generation
from reactive_orch.core.health import own_problems
from reactive_orch.core.life import Happened, shown
from reactive_orch.errors import ConfigError
from reactive_orch.model import MemberId, Partition, Projection, Snapshot, Subscription, WorkerState, check_name
from reactive_orch.model.middleware import around, wrong_with
from reactive_orch.model.reports import Subject
from reactive_orch.model.status import WorkerStatus
from reactive_orch.runtime import status
from reactive_orch.runtime.cancellation import lasting_group
from reactive_orch.runtime.handling.hooked import Hooked
from reactive_orch.runtime.handling.runner import Runner
from reactive_orch.runtime.handling.runners import Runners
from reactive_orch.runtime.handling.scope import Scope
from reactive_orch.runtime.handling.serial import Serial
from reactive_orch.runtime.handling.together import groups_of
from reactive_orch.runtime.interruptions import Interruptions
from reactive_orch.runtime.membership import registration
from reactive_orch.runtime.membership.shutdown import Shutdown
from reactive_orch.runtime.membership.turns import Membership
from reactive_orch.runtime.node import Node
from reactive_orch.runtime.progress_watch import ProgressWatch
from reactive_orch.runtime.reading.window_cache import caches_of

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from reactive_orch.core.health import Facts
    from reactive_orch.model import Hooks, Middleware
    from reactive_orch.model.awaiter import Awaiter
    from reactive_orch.model.middleware import Around
    from reactive_orch.model.problems import Problem


class Worker:
    """A member of a replica set that runs some projections on a node."""

    def __init__(  # noqa: PLR0913 - a keyword for each thing that can be said about a worker
        self,
        node: Node,
        replica_set: str,
        projections: Sequence[Projection],
        *,
        until_idle: bool = False,
        middleware: Sequence[Middleware] = (),
        batch_middleware: Sequence[Middleware] = (),
        hooks: Sequence[Hooks] = (),
    ) -> None:
        """Prepare; `run` joins.

        `until_idle`: handle what is settled when `run` begins, then leave. `middleware`, `batch_middleware` and `hooks`
        are of all its projections, outside of what those have themselves. Raises ConfigError for what is no node, a bad
        replica-set name, no projections, two of one name, and for what is no middleware or no hooks.
        """
        _demand_node(node)
        check_name("replica-set", replica_set)
        self.replica_set = replica_set
        self._node = node
        self._projections = registration.checked(projections)
        self._around = _checked(around(middleware, batch_middleware, hooks))
        self._runners = Runners()
        self._shutdown = Shutdown(until_idle=until_idle, grace_s=node.config.grace_s)
        self._progress = ProgressWatch(replica_set, node)
        self._membership = Membership(node, replica_set, self._runners, self._shutdown, self._progress.turns)
        self._has_run = False

    @property
    def node(self) -> Node:
        """On what it runs."""
        return self._node

    @property
    def member(self) -> MemberId | None:
        """As whom it has joined; None when it has not, or was removed."""
        return self._membership.member

    @property
    def snapshot(self) -> Snapshot | None:
        """The replica set as it was last seen."""
        return self._membership.snapshot

    @property
    def generation(self) -> int:
        """The one it has adopted, or is adopting; 0 before the first."""
        return self._membership.adoptions.generation

    @property
    def state(self) -> WorkerState:
        """Where the worker is in its life."""
        return shown(self._membership.life.state, empty=self._runners.empty)

    @property
    def partitions(self) -> Mapping[Subscription, frozenset[Partition]]:
        """Subscription → the partitions it holds now."""
        return self._runners.held

    @property
    def events_handled(self) -> Mapping[Subscription, int]:
        """Subscription → events in batches committed by this worker."""
        return self._runners.events_handled

    @property
    def busy(self) -> list[str]:
        """The projections that have a batch in hand."""
        return self._runners.busy

    def stop(self) -> None:
        """Finish the batches in flight, save, leave, and let `run` return."""
        self._shutdown.asked.set()
        self._membership.wakeup.set("stop")

    async def run(self) -> None:
        """Serve until `stop`, or until idle if asked for.

        Raises ProjectionFailed or ConfigError, in an exception group; ConfigError by itself when it has run before, and
        when its node is not entered, or is left before this has ended.
        When cancelled, it leaves without waiting for handlers: their batches are rolled back.
        """
        if self._has_run:
            msg = "a worker runs once: make another one to run again"
            raise ConfigError(msg)
        with self._node.attached(self), self._node.watchers.tracing.quiet():
            self._has_run = True
            self._shutdown.work_begins()
            await self._node.database.allow(max(p.timeout or 0.0 for p in self._projections))
            try:
                accepted = await registration.register_unless(
                    self._shutdown.asked, self._node, self.replica_set, self._projections, self._progress.turns
                )
                if not self._shutdown.begun:
                    self._prepare({p.subscription for p in accepted})
                    await self._serve()
                    self._shutdown.check_complete(self._refused)
            finally:
                self._membership.life.note(Happened.ENDED)

    def _prepare(self, accepted: Collection[Subscription]) -> None:
        """Make the runners; those of what is not accepted do nothing. Raises ConfigError as `check_left` does."""
        caches, groups = caches_of(self._projections), groups_of(self._projections)
        self._runners.together = frozenset(chain.from_iterable(groups.values()))
        self._runners.add(
            Runner(self._scope(p), caches[p.subscription], groups.get(p.subscription, ())) for p in self._projections
        )
        for each in self._runners.by_subscription.keys() - accepted:
            self._runners.give_up(each)
        self._shutdown.check_left(len(accepted), self._refused)

    async def _serve(self) -> None:
        if self._shutdown.until_idle:
            for log in self._runners.logs:
                self._node.logs[log].look(self._membership.wakeup)
        async with lasting_group() as tasks:
            for runner in (*self._runners.by_subscription.values(), *self._runners.out.values()):
                tasks.start_soon(self._shutdown.watching, runner.run, name=f"{runner.run.__module__}.Runner.run")
            for together in self._runners.together:
                tasks.start_soon(self._shutdown.watching, together.run)
            tasks.start_soon(self._membership.watch.run, self._node.database)
            accepted = [p for p in self._projections if p.subscription in self._runners.by_subscription]
            tasks.start_soon(registration.tell_unmatched, self._node, self.replica_set, accepted)
            try:
                await self._membership.run()
            finally:
                # Here, not after the group: a handler that does not heed its cancellation would hold that up.
                tasks.cancel_scope.cancel()
                await self._membership.leave_at_once()

    def wake(self, source: str) -> None:
        """Look: anything may have changed; `source` says what told, for people to see."""
        self._membership.wakeup.set(source)
        self._runners.wake()

    def awaited(self, awaiter: Awaiter) -> None:
        """Answer somebody who waits for one of its projections, when it has got that far."""
        runner = self._runners.by_subscription.get(awaiter.subscription)
        if runner is not None:
            for lane in runner.lanes:
                lane.answers.add(awaiter)

    def facts(self) -> Facts:
        """Return what health is judged by."""
        runners, adoption = self._runners.by_subscription, self._membership.adoptions.present
        return self._progress.facts(
            runners,
            state=self.state,
            generation=self.generation,
            age_s=time.monotonic() - self._membership.looked_at,
            rebalancing_s=adoption.age_s if adoption else 0.0,
            expelled=self._membership.life.expelled,
            refused=self._runners.out.refused,
            given_up=self._runners.out.given_up,
            away=self._runners.out.away,
            idle=not runners,
        )

    @property
    def _refused(self) -> set[str]:
        return {each.projection for each in self._runners.out.refused}

    def watch_progress(self) -> list[Problem]:
        """See whether it gets on; return all that is wrong, as far as it knows."""
        unserved = generation.unserved(self.snapshot) if self.snapshot else ()
        self._progress.look(self._runners.by_subscription, self._membership.life.state, unserved)
        return own_problems(self.facts())

    def status(self) -> WorkerStatus:
        """Return how it stands; from memory, in any thread."""
        return WorkerStatus(
            replica_set=self.replica_set,
            member=self.member,
            state=self.state,
            seen=status.of_replica_set(self.snapshot, self._membership.adoptions.complete),
            projections=tuple(
                runner.status(self._progress.standing_s(each))
                for each, runner in list(self._runners.by_subscription.items())
            ),
        )

    def _scope(self, projection: Projection) -> Scope:
        def others() -> bool:
            snapshot = self._membership.snapshot
            return snapshot is not None and generation.others_run(snapshot, projection.subscription, self._node.label)

        interruptions = Interruptions(self._node.watchers.emit, self.replica_set, *projection.subscription)
        subject = Subject(self.replica_set, *projection.subscription)
        outer = self._around.outside(projection.around)
        return Scope(
            node=self._node,
            replica_set=self.replica_set,
            projection=projection,
            generation=lambda: self.generation,
            changed=self._membership.runner_moved,
            idle=self._membership.idle,
            until_idle=self._shutdown.until_idle,
            serial=Serial(self._node.database, subject, interruptions, self._node.watchers.emit),
            interruptions=interruptions,
            others=others,
            around=outer,
            hooked=Hooked(subject, outer.hooks),
        )


def _checked(given: Around) -> Around:
    if wrong := wrong_with(given):
        msg = f"a worker's {'; '.join(wrong)}"
        raise ConfigError(msg)
    return given


def demand_workers(taker: str, workers: Sequence[object]) -> None:
    """Raise ConfigError if something of what the function `taker` was given is no worker."""
    for each in workers:
        if not isinstance(each, Worker):
            msg = f"{taker} takes workers, of a list of them {taker}(*workers), not {type(each).__name__}"
            raise ConfigError(msg)


def _demand_node(node: object) -> None:
    if not isinstance(node, Node):
        msg = f"a worker runs on a node: Worker(Node(config), …), not {type(node).__name__}"
        raise ConfigError(msg)
