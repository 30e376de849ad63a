"""Adopting a generation: what a member gives, takes and keeps, and when (protocol 5.6)."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from reactive_orch.core import generation as core
from reactive_orch.model import AdoptionSteps
from reactive_orch.model.reports import (
    AdoptionEnded,
    GenerationCompleted,
)
from reactive_orch.postgres import membership

if TYPE_CHECKING:
    from collections.abc import Mapping

    from reactive_orch.model import Acknowledged, Partition, Snapshot, Subscription, Turn
    from reactive_orch.model.reports import Emit
    from reactive_orch.postgres.connection import AnyConnection
    from reactive_orch.runtime.handling.runners import Runners


class Adoption:
    """Begins with the snapshot that showed the generation; ends acknowledged, superseded or failed."""

    def __init__(self, turn: Turn, snapshot: Snapshot, runners: Runners, emit: Emit, *, resumed: bool) -> None:
        """Compute what moves. `resumed`: acknowledged before, to be held again after a lost connection."""
        self._runners = runners
        self._emit = emit
        self.resumed = resumed
        """It was acknowledged before: there is nothing to tell."""
        self._acknowledging: tuple[int, Acknowledged] | None = None
        self.generation, self.incarnation = snapshot.generation, snapshot.incarnation
        self.due: Mapping[Subscription, frozenset[Partition]] = core.assigned_to(snapshot, turn.member)
        self.done = False
        """It is over: acknowledged, superseded or failed."""
        self._moves = core.moves(runners.held, self.due)
        in_flight = core.pairs(runners.in_flight) & self._moves.lost
        self._steps = AdoptionSteps(turn=turn, snapshot=snapshot, in_flight=len(in_flight))
        self._facts = self._steps.adopted(time.time_ns(), *map(len, self._moves))

    def is_of(self, snapshot: Snapshot) -> bool:
        """Tell whether it adopts this generation. In another incarnation the same number may mean another one."""
        return (self.generation, self.incarnation) == (snapshot.generation, snapshot.incarnation)

    @property
    def age_s(self) -> float:
        """For how long it has been going on."""
        return self._steps.turn.age_s(time.time_ns())

    def note(self) -> None:
        """Note the time if a step has been done: called whenever a runner has moved."""
        if self.done:
            return
        held, now_ns = core.pairs(self._runners.held), time.time_ns()
        if self._steps.finished_ns is None and not self._moves.lost & held:
            self._steps.finished_ns = now_ns
        if self._steps.loaded_ns is None and self._moves.gained <= held:
            self._steps.loaded_ns = now_ns

    async def acknowledge(self, connection: AnyConnection, name: str) -> bool:
        """Record that this member, of the process of this name, has adopted it.

        False when there is another generation already, or it is no member any more.
        """
        turn, began_ns = self._steps.turn, time.time_ns()
        self._facts = self._steps.adopted(time.time_ns(), *map(len, self._moves))
        by = (turn.member, name)
        answer = await membership.acknowledge(connection, turn.replica_set, by, self.generation, self._facts)
        if answer is not None:
            self._acknowledging = (began_ns, answer)
        return answer is not None

    def end(self, outcome: str) -> None:
        """Tell how it ended. Of a resumed one there is nothing to tell: for the replica set nothing has changed."""
        self.done = True
        if outcome == "acknowledged":
            for runner in self._runners.by_subscription.values():
                runner.lanes.hooked.settled()
        if self.resumed:
            return
        steps, acknowledging = self._steps, self._acknowledging
        steps.row_wait_s, steps.row_waited_for = self._runners.row_wait
        ended = AdoptionEnded(steps, self._facts, outcome, self.due, acknowledging, time.time_ns())
        if acknowledging is not None and ended.completed_s is not None:
            self._emit(GenerationCompleted(steps.turn, steps.snapshot, acknowledging[1], ended.completed_s))
        self._emit(ended)

    @property
    def met(self) -> bool:
        """Whether the worker holds exactly what it should."""
        return self._runners.reconciled

    @property
    def completed(self) -> bool:
        """Whether its acknowledgement was the last."""
        return self._acknowledging is not None and self._acknowledging[1].completed_at is not None
