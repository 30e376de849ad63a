"""One worker's life in one replica set: join, adopt generation after generation, leave.

    turn   wake-up or timer -> observe (SQL) -> decide (core) -> perform: change, drop, take, acknowledge

A turn reads once and acts on what it read; a refused write is no error, the next turn sees why. Nothing is remembered
between turns but the member's id and the generation it has adopted, so lost wake-ups and restarts need no special case.
"""

from __future__ import annotations

import contextlib
import enum
import logging
import random
import time
from typing import TYPE_CHECKING

import anyio

from reactive_orch.core import membership as core
from reactive_orch.errors import ConfigError, Superseded, Unavailable
from reactive_orch.model import Filter, MemberId, MemberState, Partition, Projection, Snapshot, check_name
from reactive_orch.postgres import membership
from reactive_orch.runtime.backoff import Backoff
from reactive_orch.runtime.lane import Work
from reactive_orch.runtime.share import Share
from reactive_orch.runtime.signal import Signal
from reactive_orch.runtime.watch import Watch

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from reactive_orch.model import Change
    from reactive_orch.runtime.node import Node

LOOK_AFTER_BEATS = 5
LEAVE_ATTEMPTS = 10
LEAVE_TIMEOUT_S = 3.0
"""Leaving in good order must not hang on a database that is away: then the free lock tells the others."""

_logger = logging.getLogger("reactive_orch")


class State(enum.Enum):
    """Where a worker is in its life, as health shows it."""

    STARTING = "starting"
    JOINING = "joining"
    REBALANCING = "rebalancing"
    SERVING = "serving"
    STANDBY = "standby"
    UNAVAILABLE = "database unavailable"
    STOPPING = "stopping"
    STOPPED = "stopped"


class Worker:
    """A member of a replica set that runs some projections on a node."""

    def __init__(
        self, node: Node, replica_set: str, projections: Sequence[Projection], *, until_idle: bool = False
    ) -> None:
        """Prepare; `run` joins.

        `until_idle`: handle what is settled at the start, then leave. Raises ConfigError for a bad replica-set name,
        no projections, or two of one name.
        """
        check_name("replica-set", replica_set)
        _check_projections(projections)
        self.replica_set = replica_set
        self.member: MemberId | None = None
        self.generation = 0
        self._node = node
        self._projections = tuple(projections)
        self._shares: dict[str, Share] = {}
        self._signal = Signal()
        self._watch = Watch(node.database, self._signal.set)
        self._stopping = False
        self._until_idle = until_idle
        self._target: int | None = None
        self._state = State.STARTING
        self._stopping_since: float | None = None
        self._adopting: tuple[str, float] | None = None
        """What moves, in words, and since when; None: the present generation has still to be looked at."""
        self._adopted = False

    @property
    def state(self) -> State:
        """Where the worker is in its life."""
        return self._state

    @property
    def partitions(self) -> Mapping[str, frozenset[Partition]]:
        """Projection → the partitions it holds now."""
        return {name: share.held for name, share in self._shares.items()}

    @property
    def events_handled(self) -> Mapping[str, int]:
        """Projection → events in batches committed by this worker."""
        return {name: share.events_handled for name, share in self._shares.items()}

    @property
    def busy(self) -> list[str]:
        """The projections that have a batch in hand."""
        return [name for name, share in self._shares.items() if share.in_flight]

    def stop(self) -> None:
        """Finish the batches in flight, save, leave, and let `run` return."""
        self._stopping = True
        self._signal.set()

    async def run(self) -> None:
        """Serve until `stop`, or until idle if asked for.

        Raises ProjectionFailed or ConfigError, in an exception group. When cancelled, it leaves without waiting for
        handlers: their batches are rolled back.
        """
        with self._node.attached(self):
            try:
                await self._register()
                async with anyio.create_task_group() as tasks:
                    for share in self._shares.values():
                        tasks.start_soon(share.run)
                    tasks.start_soon(self._watch.run)
                    await self._live()
                    tasks.cancel_scope.cancel()
            finally:
                with anyio.move_on_after(LEAVE_TIMEOUT_S, shield=True):
                    await self._leave_in_passing()
                self._state = State.STOPPED

    def wake(self) -> None:
        """Look: anything may have changed."""
        self._signal.set()
        for share in self._shares.values():
            share.wake()

    async def _register(self) -> None:
        wanted = {projection.name: projection.filter for projection in self._projections}
        refused = await self._persistently(wanted)
        for name in sorted(refused):
            _logger.error(
                "projection %s is recorded with another filter and not run here; to change it: "
                "python -m reactive_orch rewind --replica-set %s --projection %s --to start|keep",
                name,
                self.replica_set,
                name,
            )
        if refused == wanted.keys():
            msg = f"no projection left to run: {', '.join(sorted(refused))} recorded with another filter (see rewind)"
            raise ConfigError(msg)
        self._shares = {p.name: Share(self._work(p)) for p in self._projections if p.name not in refused}

    async def _persistently(self, wanted: Mapping[str, Filter]) -> frozenset[str]:
        backoff = Backoff(0.05, 5.0)
        while True:
            try:
                async with self._node.database.coordination() as connection:
                    return await membership.register(connection, self.replica_set, wanted)
            except (Unavailable, Superseded):
                await anyio.sleep(backoff.next_s())

    def _work(self, projection: Projection) -> Work:
        return Work(
            config=self._node.config,
            database=self._node.database,
            tail=self._node.tail,
            replica_set=self.replica_set,
            projection=projection,
            partitions_total=self._node.partitions_total,
            changed=self._signal.set,
            rests=self._came_to_rest,
        )

    def _came_to_rest(self) -> None:
        if self._until_idle:
            self._signal.set()

    async def _live(self) -> None:
        backoff = Backoff(0.05, 5.0)
        while not await self._is_over():
            try:
                again = await self._turn()
                backoff.reset()
            except Superseded:
                again = True
            except Unavailable as error:
                self._enter_unavailable(error)
                await self._signal.wait(backoff.next_s())
                continue
            if not again:
                await self._signal.wait(self._look_after_s())

    async def _is_over(self) -> bool:
        if self._until_idle and not self._stopping and self._is_idle():
            self.stop()
        if not self._stopping:
            return False
        self._stopping_since = self._stopping_since or time.monotonic()
        waited_s = time.monotonic() - self._stopping_since
        if self._state is State.UNAVAILABLE and waited_s > LEAVE_TIMEOUT_S:
            return True
        landed = all(share.settled for share in self._shares.values())
        return waited_s > self._node.config.grace_s or (self.member is None and landed)

    def _look_after_s(self) -> float:
        """Return when to look without being woken: seldom while the heartbeats look too."""
        beats = LOOK_AFTER_BEATS if self._node.session.connected and not self._stopping else 1
        return beats * self._node.config.heartbeat_s * random.uniform(0.8, 1.0)

    def _is_idle(self) -> bool:
        """Tell whether everything that was settled when this worker first looked has been handled."""
        if self._target is None:
            self._target = self._node.tail.settled
        target = self._target
        return (
            target is not None
            and self._adopted
            and all(share.low is None or share.low >= target for share in self._shares.values())
        )

    async def _turn(self) -> bool:
        """Observe, decide, perform; True when there is more to do at once."""
        async with self._node.database.coordination() as connection:
            snapshot = await membership.observe(connection, self.replica_set)
        if self.member is None:
            return await self._join()
        new = core.plan_change(snapshot, self._node.partitions_total, trust_locks=self._node.session.trusts_locks)
        if new is not None:
            await self._change(snapshot, new)
            return True
        me = core.find(snapshot, self.member)
        if me is None:
            return await self._removed()
        if self._stopping:
            return await self._let_go(me.state)
        self._watch.set(core.successor(snapshot, self.member))
        await self._adopt(snapshot, me.acknowledged)
        return False

    async def _join(self) -> bool:
        if self._stopping:
            return False
        self._state = State.JOINING
        self.member = await self._node.session.join(
            self.replica_set, self._node.label, self._shares.keys(), self._node.config.stale_after_s
        )
        return True

    async def _change(self, snapshot: Snapshot, new: Change) -> None:
        async with self._node.database.coordination() as connection:
            written = await membership.change(connection, self.replica_set, new, traceparent=None)
            left_behind = core.left_behind(snapshot, new)
            if written and left_behind:
                spared = await membership.terminate(connection, left_behind)
                if spared:
                    _logger.warning("%d connections of removed workers could not be ended: no right to", spared)

    async def _removed(self) -> bool:
        """Be out: on the way to the exit as asked for, else because the others took this worker for dead."""
        assert self.member is not None
        member, self.member, self._adopted = self.member, None, False
        if self._stopping:
            await self._node.session.forget(member)
            return False
        _logger.warning("worker %d was removed from %s by the others; joining anew", member, self.replica_set)
        for share in self._shares.values():
            share.forget()
        await self._node.session.forget(member)
        return True

    async def _let_go(self, state: MemberState) -> bool:
        """Save and release what no handler works on, then ask to be removed; the rest follows as it lands."""
        assert self.member is not None
        self._state = State.STOPPING
        for share in self._shares.values():
            share.set(frozenset())
        if state is MemberState.LEAVING or not all(share.only_in_flight for share in self._shares.values()):
            return False
        async with self._node.database.coordination() as connection:
            await membership.leave(connection, self.member)
        return True

    async def _adopt(self, snapshot: Snapshot, acknowledged: int) -> None:
        assert self.member is not None
        if snapshot.generation != self.generation or not self._adopting:
            self._begin_adoption(snapshot, self.member)
        if not all(share.settled for share in self._shares.values()):
            return
        if acknowledged < snapshot.generation:
            async with self._node.database.coordination() as connection:
                await membership.acknowledge(connection, self.replica_set, self.member, snapshot.generation)
        if not self._adopted:
            self._finish_adoption(snapshot)

    def _begin_adoption(self, snapshot: Snapshot, me: MemberId) -> None:
        self.generation = snapshot.generation
        self._state, self._adopted = State.REBALANCING, False
        due = core.share(snapshot, me)
        before = {(name, p) for name, held in self.partitions.items() for p in held}
        after = {(name, p) for name, held in due.items() for p in held}
        counts = f"took {len(after - before)}, gave {len(before - after)}, kept {len(after & before)} partitions"
        self._adopting = (counts, time.monotonic())
        for name, share in self._shares.items():
            share.set(due.get(name, frozenset()))

    def _finish_adoption(self, snapshot: Snapshot) -> None:
        self._adopted = True
        held = sum(len(partitions) for partitions in self.partitions.values())
        self._state = State.SERVING if held else State.STANDBY
        counts, since = self._adopting or ("", time.monotonic())
        _logger.info(
            "generation %d of %s (%s of %s), %d members: worker %s %s, holds %d; adopted in %.0f ms",
            snapshot.generation,
            self.replica_set,
            snapshot.reason.value if snapshot.reason else "",
            ", ".join(map(str, snapshot.subjects)),
            len(snapshot.members),
            self.member,
            counts,
            held,
            (time.monotonic() - since) * 1000,
        )

    def _enter_unavailable(self, error: Unavailable) -> None:
        if self._state is not State.UNAVAILABLE:
            _logger.warning("database unavailable, trying again until it is back: %s", error)
        self._state, self._adopted, self._adopting = State.UNAVAILABLE, False, None

    async def _leave_in_passing(self) -> None:
        """After a failure or a cancellation: one attempt to tell the others at once; a free lock tells them later."""
        if self.member is None:
            return
        member, self.member = self.member, None
        with contextlib.suppress(Unavailable, Superseded, ConfigError):
            async with self._node.database.coordination() as connection:
                await membership.leave(connection, member)
                for _ in range(LEAVE_ATTEMPTS):
                    snapshot = await membership.observe(connection, self.replica_set)
                    new = core.plan_change(snapshot, self._node.partitions_total, trust_locks=False)
                    if new is None or await membership.change(connection, self.replica_set, new, traceparent=None):
                        break
            await self._node.session.forget(member)


def _check_projections(projections: Sequence[Projection]) -> None:
    names = [projection.name for projection in projections]
    twice = sorted({name for name in names if names.count(name) > 1})
    if not names:
        msg = "no projection to run"
        raise ConfigError(msg)
    if twice:
        msg = f"two projections are named {', '.join(map(repr, twice))}: names must differ within a replica set"
        raise ConfigError(msg)
