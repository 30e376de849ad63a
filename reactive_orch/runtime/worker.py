"""One worker's life in one replica set: join, adopt generation after generation, leave.

    turn   wake-up or timer -> observe (SQL) -> decide (core) -> perform: change, drop, take, acknowledge

A turn reads once and acts on what it read; a refused write is no error, the next turn sees why. Nothing is remembered
between turns but the member's id and the generation it has adopted, so lost wake-ups and restarts need no special case.
"""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING

from reactive_orch.core import generation as core
from reactive_orch.core.health import State
from reactive_orch.errors import ConfigError, Superseded, Unavailable
from reactive_orch.model import NOBODY, Member, MemberId, MemberState, Partition, Projection, Snapshot, check_name
from reactive_orch.postgres import membership
from reactive_orch.runtime import gauges, registration
from reactive_orch.runtime.adopting import Adopting
from reactive_orch.runtime.adoption import write_generation
from reactive_orch.runtime.backoff import Backoff
from reactive_orch.runtime.cancellation import lasting_group
from reactive_orch.runtime.crowd import Crowd
from reactive_orch.runtime.progress_watch import LOOK_AFTER_BEATS, ProgressWatch
from reactive_orch.runtime.runner import Runner
from reactive_orch.runtime.scope import Scope
from reactive_orch.runtime.shutdown import Shutdown
from reactive_orch.runtime.wakeup import WORK, Wakeup
from reactive_orch.runtime.watch import Watch
from reactive_orch.runtime.window_cache import caches_of
from reactive_orch.telemetry import spans
from reactive_orch.telemetry.adoption import expelled
from reactive_orch.telemetry.metric_names import REGISTRATIONS, WAKE_UPS
from reactive_orch.telemetry.metrics import count, observed
from reactive_orch.telemetry.rebalance import Turn

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from reactive_orch.core.health import Facts
    from reactive_orch.runtime.adoption import Adoption
    from reactive_orch.runtime.node import Node


class Worker:
    """A member of a replica set that runs some projections on a node."""

    def __init__(
        self, node: Node, replica_set: str, projections: Sequence[Projection], *, until_idle: bool = False
    ) -> None:
        """Prepare; `run` joins.

        `until_idle`: handle what is settled when `run` begins, then leave. Raises ConfigError for a bad replica-set
        name, no projections, or two of one name.
        """
        check_name("replica-set", replica_set)
        registration.check_projections(projections)
        self.replica_set = replica_set
        self.member: MemberId | None = None
        self.snapshot: Snapshot | None = None
        """The replica set as it was last seen."""
        self._node = node
        self._projections = tuple(projections)
        self._runners: dict[str, Runner] = {}
        self._wakeup = Wakeup()
        self._crowd = Crowd()
        self._shutdown = Shutdown(until_idle=until_idle, grace_s=node.config.grace_s)
        self._state = State.STARTING
        self._looked_at = time.monotonic()
        self._began_at: float | None = None
        self._expelled = False
        self._progress = ProgressWatch(replica_set, node)
        self._adopting = Adopting()

    @property
    def generation(self) -> int:
        """The one it has adopted, or is adopting; 0 before the first."""
        return self._adopting.generation

    @property
    def state(self) -> State:
        """Where the worker is in its life."""
        idle = self._state is State.SERVING and not any(
            runner.assigned or runner.held for runner in self._runners.values()
        )
        return State.STANDBY if idle else self._state

    @property
    def partitions(self) -> Mapping[str, frozenset[Partition]]:
        """Projection → the partitions it holds now."""
        return {name: runner.held for name, runner in self._runners.items()}

    @property
    def events_handled(self) -> Mapping[str, int]:
        """Projection → events in batches committed by this worker."""
        return {name: runner.events_handled for name, runner in self._runners.items()}

    @property
    def _stopping(self) -> bool:
        return self._shutdown.begun

    @property
    def busy(self) -> list[str]:
        """The projections that have a batch in hand."""
        return [name for name, runner in self._runners.items() if runner.in_flight]

    def stop(self) -> None:
        """Finish the batches in flight, save, leave, and let `run` return."""
        self._shutdown.asked.set()
        self._wakeup.set("stop")

    async def run(self) -> None:
        """Serve until `stop`, or until idle if asked for.

        Raises ProjectionFailed or ConfigError, in an exception group; ConfigError by itself when it has run before.
        When cancelled, it leaves without waiting for handlers: their batches are rolled back.
        """
        if self._began_at is not None:
            msg = "a worker runs once: make another one to run again"
            raise ConfigError(msg)
        self._began_at = time.monotonic()
        self._watch = Watch(self._node.database, lambda: self._wakeup.set("watch"))
        with self._node.attached(self), observed(self._gauges), spans.quiet():
            try:
                accepted = await registration.register_unless(
                    self._shutdown.asked, self._node, self.replica_set, self._projections, self._progress.turns
                )
                caches = caches_of(accepted)
                self._runners = {p.name: Runner(self._scope(p), caches[p.name]) for p in accepted}
                if accepted:
                    await self._serve()
                    self._shutdown.check_complete({p.name for p in self._projections} - set(self._runners))
            finally:
                self._state = State.STOPPED

    async def _serve(self) -> None:
        if self._shutdown.until_idle:
            self._node.follower.look(self._wakeup)
        async with lasting_group() as tasks:
            for runner in self._runners.values():
                tasks.start_soon(self._shutdown.watching, runner.run, name=f"{runner.run.__module__}.Runner.run")
            tasks.start_soon(self._watch.run)
            try:
                await self._live()
            finally:
                # Here, not after the group: a handler that does not heed its cancellation would hold that up.
                tasks.cancel_scope.cancel()
                await self._depart()

    async def _depart(self) -> None:
        """Be no member any more; of what handlers still have in hand nothing stays."""
        for runner in self._runners.values():
            runner.cut()
        member, self.member = self.member, None
        if member is not None:
            await self._node.departures.leave(self.replica_set, member, self._shutdown.failure)

    def wake(self, source: str) -> None:
        """Look: anything may have changed."""
        self._wakeup.set(source)
        for runner in self._runners.values():
            runner.wake()

    def facts(self) -> Facts:
        """Return what health is judged by."""
        return self._progress.facts(
            self._runners,
            state=self.state,
            age_s=time.monotonic() - self._looked_at,
            rebalancing_s=self._adopting.present.age_s if self._adopting.present else 0.0,
            expelled=self._expelled,
            refused=frozenset(p.name for p in self._projections if self._runners and p.name not in self._runners),
        )

    def watch_progress(self) -> None:
        """See whether it gets on."""
        self._progress.look(self._runners, self._state)

    def _gauges(self) -> gauges.Gauges:
        yield from gauges.of_worker(self.replica_set, self.state, self.snapshot, self._adopting.complete)
        yield from gauges.of_runners(self.replica_set, self._runners, self._node.follower.settled, self._progress)

    def _scope(self, projection: Projection) -> Scope:
        return Scope(
            node=self._node,
            replica_set=self.replica_set,
            projection=projection,
            generation=lambda: self.generation,
            changed=self._runner_changed,
            rests=self._came_to_rest,
        )

    def _runner_changed(self) -> None:
        self._adopting.note()
        self._wakeup.set()

    def _came_to_rest(self) -> None:
        if self._shutdown.until_idle:
            self._wakeup.set()

    async def _live(self) -> None:
        backoff, contended, source = Backoff(0.05, 5.0), Backoff(0.001, 0.5), "start"
        while not self._is_over():
            try:
                again = await self._turn(source)
                backoff.reset()
                contended.reset()
                self._progress.turns.over()
            except Superseded as error:
                self._progress.turns.note("turn", error)
                await self._shutdown.pause(contended.next_s())
                again = True
            except Unavailable as error:
                self._progress.turns.note("turn", error)
                self._enter_unavailable(error)
                # Not on the wake-up: each lost connection sets it, this turn's own included.
                await self._shutdown.pause(backoff.next_s())
                source = "reconnect"
                continue
            source = "own"
            if not again:
                await self._wakeup.wait(self._look_after_s())
                source = self._wakeup.source

    def _is_over(self) -> bool:
        runners, adopted = self._runners.values(), self._adopting.present is not None and not self._adopting.open
        settled = self._node.follower.settled_since(self._began_at or 0.0)
        if adopted and not self._stopping and self._shutdown.is_due(settled, self._node.database.incarnation, runners):
            self.stop()
        return self._shutdown.is_over(runners, left=self.member is None)

    def _look_after_s(self) -> float:
        """Return when to look without being woken: seldom while the heartbeats look too."""
        beats = LOOK_AFTER_BEATS if self._node.session.connected and not self._stopping else 1
        return beats * self._node.config.heartbeat_s * random.uniform(0.8, 1.0)

    async def _turn(self, source: str) -> bool:
        """Observe, decide, perform; True when there is more to do at once."""
        self._looked_at = time.monotonic()
        count(WAKE_UPS, "turn", source)
        # First, as others wait for it. And if nobody else woke this worker, there is nothing new to see.
        if await self._acknowledge_if_adopted() and source == WORK:
            return False
        turn = Turn(self.replica_set, self.member or NOBODY, source)
        snapshot = await self._observe(turn)
        if self.member is None:
            return await self._join()
        me = core.member_of(snapshot, self.member, self._node.label)
        if me is None:
            return await self._removed(turn, snapshot)
        if self._stopping and me.state is MemberState.WAITING:
            # Never admitted: no generation is needed, nor any lock that somebody may sit on.
            await registration.ask_to_leave(self._node, me.id)
            return True
        trust, watched_s = self._node.session.trusts and core.may_judge(me), self._node.session.watched_s
        new = core.plan_change(snapshot, self._node.partitions_total, trust=trust, watched_s=watched_s)
        if new is not None:
            if not await self._crowd.gathers(self._wakeup, snapshot, new):
                async with self._node.database.coordination(snapshot.incarnation) as connection:
                    await write_generation(connection, turn, snapshot, new)
            return True
        return await (self._let_go(me) if self._stopping else self._adopt(turn, snapshot, me))

    async def _acknowledge_if_adopted(self) -> bool:
        adoption = self._adopting.open
        if adoption is None or self._stopping or not adoption.met:
            return False
        return await self._acknowledge(adoption)

    async def _observe(self, turn: Turn) -> Snapshot:
        async with self._node.database.coordination() as connection:
            snapshot = await membership.observe(connection, self.replica_set)
        turn.observed()
        self._shutdown.note(reached=True)
        self.snapshot = snapshot
        self._node.follower.readers = max(len(snapshot.members), 1)
        if snapshot.complete:
            self._adopting.complete = snapshot.generation
        return snapshot

    async def _join(self) -> bool:
        self._state = State.STOPPING if self._stopping else State.JOINING
        if self._stopping:
            return False
        self.member = await self._node.session.join(
            self.replica_set, self._runners.keys(), self._node.config.stale_after_s
        )
        count(REGISTRATIONS, self.replica_set)
        return True

    async def _removed(self, turn: Turn, snapshot: Snapshot) -> bool:
        """Be out: on the way to the exit as asked for, else because the others took this worker for dead."""
        assert self.member is not None
        member, self.member = self.member, None
        self._expelled = not self._stopping
        self._adopting.end("superseded" if self._stopping else "failed")
        if self._stopping:
            registration.say_left(turn, snapshot)
            await self._node.session.unlock(member)
            return False
        registration.say_removed(turn, snapshot)
        for runner in self._runners.values():
            runner.drop()
        expelled(turn, snapshot, self._adopting.last)
        await self._node.session.unlock(member)
        return True

    async def _let_go(self, me: Member) -> bool:
        """Save and release what no handler works on, then ask to be removed; the rest follows as it lands."""
        self._state = State.STOPPING
        for runner in self._runners.values():
            runner.assign(frozenset())
        if me.state is MemberState.LEAVING or not all(runner.only_in_flight for runner in self._runners.values()):
            return False
        await registration.ask_to_leave(self._node, me.id)
        return True

    async def _adopt(self, turn: Turn, snapshot: Snapshot, me: Member) -> bool:
        if await registration.give_up_refused(self._node, self.replica_set, me, self._runners):
            self._wakeup.set("refused")
        for name, runner in self._runners.items():
            runner.rewound(snapshot.epochs.get(name, 0))
        adoption = self._adopting.present
        if adoption is None or not adoption.is_of(snapshot):
            self._state = State.REBALANCING
            resumed = me.acknowledged >= snapshot.generation
            adoption = self._adopting.begin(turn, snapshot, self._runners, resumed=resumed)
        # Done and yet not acknowledged: a crash of the server has taken that back.
        open_still = not adoption.done or me.acknowledged < snapshot.generation
        again = open_still and adoption.met and not await self._acknowledge(adoption)
        self._watch.set(core.successor(snapshot, me.id))
        return again

    async def _acknowledge(self, adoption: Adoption) -> bool:
        """Tell that the generation has been adopted; False when there is another one already."""
        news = not adoption.done
        if not await self._adopting.acknowledge(adoption, self._node.database):
            return False
        if news:
            self._state, self._expelled = State.SERVING, False
            self._came_to_rest()  # its lanes may have, before
        return True

    def _enter_unavailable(self, error: Unavailable) -> None:
        if self._state is not State.UNAVAILABLE:
            registration.say_unavailable(self.replica_set, error)
        self._state = State.UNAVAILABLE
        self._shutdown.note(reached=False)
        self._adopting.end("failed")
