"""One worker as a member of its replica set: join, adopt generation after generation, leave.

    turn   wake-up or timer -> observe (SQL) -> next_step (core) -> perform: write, drop, take, acknowledge

A turn reads once and acts on what it read; a refused write is no error, the next turn sees why. Nothing is remembered
between turns but the member's id and the generation it has adopted, so lost wake-ups and restarts need no special case.
A wake-up says nothing, so whoever has written a generation looks once more when its own notification comes.
"""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING, assert_never

from reactive_orch.core.generation import logs_differ, others_run, successor
from reactive_orch.core.life import Happened, Life
from reactive_orch.core.turn import (
    Adopt,
    Debounce,
    Join,
    Release,
    Removed,
    Rest,
    Seen,
    Withdraw,
    Write,
    next_step,
)
from reactive_orch.errors import Superseded, Unavailable
from reactive_orch.model import NOBODY, Member, MemberId, Snapshot, Turn, WorkerState
from reactive_orch.model.reports import Abandoned, Expelled, JoinAsked, Left, Looked, TurnBegan, Unreachable
from reactive_orch.postgres import membership
from reactive_orch.runtime.backoff import Pauses
from reactive_orch.runtime.membership import registration
from reactive_orch.runtime.membership.adoptions import Adoptions
from reactive_orch.runtime.membership.change import write_generation
from reactive_orch.runtime.membership.watch import Watch
from reactive_orch.runtime.wakeup import WORK, Wakeup

if TYPE_CHECKING:
    from collections.abc import Mapping

    from reactive_orch.core.turn import Step
    from reactive_orch.model import Partition, Subscription
    from reactive_orch.runtime.handling.runners import Runners
    from reactive_orch.runtime.interruptions import Interruptions
    from reactive_orch.runtime.membership.adoption import Adoption
    from reactive_orch.runtime.membership.shutdown import Shutdown
    from reactive_orch.runtime.node import Node


LOOK_AFTER_BEATS = 5
"""A worker that nobody wakes looks after so many heartbeats: each of them looks a little, too."""


class Membership:
    """One worker in one replica set."""

    def __init__(
        self, node: Node, replica_set: str, runners: Runners, shutdown: Shutdown, interruptions: Interruptions
    ) -> None:
        """Be no member yet; `interruptions` are told of the turns that failed."""
        self.member: MemberId | None = None
        self.snapshot: Snapshot | None = None
        """The replica set as it was last seen."""
        self.life = Life()
        self.looked_at = time.monotonic()
        self.wakeup = Wakeup()
        self.adoptions = Adoptions(node.watchers.emit)
        self.watch = Watch(replica_set, lambda: self.wakeup.set("watch"), node.watchers.emit)
        self._node = node
        self._replica_set = replica_set
        self._runners = runners
        self._shutdown = shutdown
        self._interruptions = interruptions

    def runner_moved(self) -> None:
        """Note that a runner has moved."""
        self.adoptions.note()
        self.wakeup.set()

    def idle(self) -> None:
        """Note that a lane has come to the end of the log."""
        if self._shutdown.until_idle:
            self.wakeup.set()

    async def run(self) -> None:
        """Take turns until all is done."""
        pauses, source = Pauses(contended_most_s=0.5), "start"
        while not self._is_over():
            try:
                again = await self._turn(source)
                pauses.reset()
                self._interruptions.over()
            except Superseded as error:
                self._interruptions.note("turn", error)
                await self._shutdown.pause(pauses.after_s(error))
                again = True
            except Unavailable as error:
                self._interruptions.note("turn", error)
                self._enter_unavailable(error)
                # Not on the wake-up: the loss of this very turn's connection has set it, so there would be no pause.
                await self._shutdown.pause(pauses.after_s(error), self._node.database.admission.pause)
                source = "reconnect"
                continue
            source = "own"
            if not again:
                await self.wakeup.wait(self._look_after_s())
                source = self.wakeup.source
        if abandoned := self._in_hand():
            self._node.watchers.emit(Abandoned(self._replica_set, abandoned))

    def _in_hand(self) -> Mapping[Subscription, frozenset[Partition]]:
        return {each: partitions for each, partitions in self._runners.in_flight.items() if partitions}

    async def leave_at_once(self) -> None:
        """Stop being a member. Batches in hand are rolled back."""
        self._runners.cut()
        member, self.member = self.member, None
        if member is not None:
            await self._node.departures.leave(self._replica_set, member, self._shutdown.failure)

    def _is_over(self) -> bool:
        adopted = self.adoptions.present is not None and not self.adoptions.open
        if adopted and self._shutdown.is_due(self._node.logs, self._node.database.incarnation, self._runners):
            self._shutdown.asked.set()
            self.wakeup.set("stop")
        return self._shutdown.is_over(self._runners, left=self.member is None)

    def _look_after_s(self) -> float:
        """Return when to look without being woken: seldom while the heartbeats look too."""
        beats = LOOK_AFTER_BEATS if self._node.session.connected and not self._shutdown.begun else 1
        return beats * self._node.config.heartbeat_s * random.uniform(0.8, 1.0)

    async def _turn(self, source: str) -> bool:
        """Observe, decide, perform; True when there is more to do at once."""
        self.looked_at = time.monotonic()
        self._node.watchers.emit(TurnBegan(self._replica_set, source))
        # First, as others wait for it. If only its own runners woke this worker, nothing else is new.
        if await self._acknowledge_if_adopted() and source == WORK:
            return False
        turn = Turn(self._replica_set, self.member or NOBODY, source, time.time_ns())
        snapshot = await self._observe(turn)
        return await self._perform(next_step(self._seen(snapshot)), turn, snapshot)

    async def _acknowledge_if_adopted(self) -> bool:
        adoption = self.adoptions.open
        if adoption is None or self._shutdown.begun or not adoption.met:
            return False
        return await self._acknowledge(adoption)

    async def _observe(self, turn: Turn) -> Snapshot:
        async with self._node.database.looking() as connection:
            snapshot = await membership.observe(connection, self._replica_set)
        turn.observed_ns = time.time_ns()
        self._demand_known_logs(snapshot)
        self._node.watchers.emit(Looked(turn))
        self._shutdown.note(reached=True)
        self.snapshot = snapshot
        for follower in self._node.logs.values():
            follower.readers = max(len(snapshot.members), 1)
        if snapshot.complete:
            self.adoptions.complete = snapshot.generation
        return snapshot

    def _demand_known_logs(self, snapshot: Snapshot) -> None:
        followers = self._node.logs
        if logs_differ(snapshot, {name: each.log.partitions for name, each in followers.items()}):
            for follower in followers.values():
                follower.wake()  # it looks at the rules, and says what is wrong
            msg = "the logs are not those that this worker has found at its start"
            raise Superseded(msg)

    def _seen(self, snapshot: Snapshot) -> Seen:
        return Seen(
            snapshot=snapshot,
            member=self.member,
            name=self._node.label,
            stopping=self._shutdown.begun,
            trusts=self._node.session.trusts,
            watched_s=self._node.session.trust.watched_s,
        )

    async def _perform(self, step: Step, turn: Turn, snapshot: Snapshot) -> bool:
        match step:
            case Rest():
                self.life.note(Happened.STOPS)
                return False
            case Join():
                await self._join()
            case Removed(asked):
                return await self._removed(turn, snapshot, asked=asked)
            case Withdraw(member):
                await registration.ask_to_leave(self._node, member)
            case Debounce(for_s):
                await self.wakeup.wait(for_s)
            case Write(change):
                async with self._node.database.coordination(snapshot.incarnation) as connection:
                    await write_generation(connection, turn, snapshot, change, self._node.watchers)
            case Release(member):
                return await self._release(member)
            case Adopt(me):
                return await self._adopt(turn, snapshot, me)
            case _:
                assert_never(step)
        return True

    async def _join(self) -> None:
        self.life.note(Happened.ASKED_TO_JOIN)
        self.member = await self._node.session.join(
            self._replica_set, self._runners.by_subscription.keys(), self._node.config.stale_after_s
        )
        self._node.watchers.emit(JoinAsked(self._replica_set))

    async def _removed(self, turn: Turn, snapshot: Snapshot, *, asked: bool) -> bool:
        """Stop being a member: as was asked for, else because the others took this worker for dead."""
        assert self.member is not None
        member, self.member = self.member, None
        self.adoptions.end("superseded" if asked else "failed")
        if asked:
            self._node.watchers.emit(Left(turn, snapshot, self._in_hand(), self._node.config.grace_s))
        else:
            self.life.note(Happened.EXPELLED)
            self._runners.drop()
            self._node.watchers.emit(Expelled(turn, snapshot))
        await self._node.session.unlock(member)
        return not asked

    async def _release(self, member: MemberId) -> bool:
        """Let go of what no handler has in hand, then ask to be removed. The rest follows as its batches end."""
        self.life.note(Happened.STOPS)
        self._runners.assign({})
        if not self._runners.only_in_flight:
            return False
        await registration.ask_to_leave(self._node, member)
        return True

    async def _adopt(self, turn: Turn, snapshot: Snapshot, me: Member) -> bool:
        if await registration.take_up_accepted(self._node, self._replica_set, snapshot, me, self._runners):
            self.wakeup.set("accepted")
        if await registration.give_up_unwanted(self._node, self._replica_set, me, self._runners):
            self.wakeup.set("given up")
        await registration.propose_again(self._node, self._replica_set, snapshot, self._runners)
        self._runners.rewound(snapshot.epochs)
        self._runners.rest(snapshot.resting)
        for each, runner in self._runners.by_subscription.items():
            runner.serial.begin(snapshot.serial.get(each, 0.0))
            if each in snapshot.asked and others_run(snapshot, each, self._node.label):
                runner.lanes.want_opinion()
        adoption = self.adoptions.present
        if adoption is None or not adoption.is_of(snapshot):
            self.life.note(Happened.BEGAN_TO_ADOPT)
            resumed = me.acknowledged >= snapshot.generation
            adoption = self.adoptions.begin(turn, snapshot, self._runners, resumed=resumed)
        # Acknowledged by this worker but not in its row: a crash of the server has taken that back.
        open_still = not adoption.done or me.acknowledged < snapshot.generation
        again = open_still and adoption.met and not await self._acknowledge(adoption)
        self.watch.set(successor(snapshot, me.id))
        return again

    async def _acknowledge(self, adoption: Adoption) -> bool:
        """Tell that the generation has been adopted; False when there is another one already."""
        news = not adoption.done
        if not await self.adoptions.acknowledge(adoption, self._node.database):
            return False
        if news:
            self.life.note(Happened.ADOPTED)
            self.idle()  # its lanes may have come to the end before
        return True

    def _enter_unavailable(self, error: Unavailable) -> None:
        if self.life.state is not WorkerState.UNAVAILABLE:
            self._node.watchers.emit(Unreachable(self._replica_set, error))
        self.life.note(Happened.LOST_THE_DATABASE)
        self._shutdown.note(reached=False)
        self.adoptions.end("failed")
