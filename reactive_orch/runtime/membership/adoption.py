"""Generations, written and adopted: what a member gives, takes and keeps, and since when (protocol 5.6)."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from reactive_orch.core import generation as core
from reactive_orch.model import AdoptionSteps
from reactive_orch.postgres import membership
from reactive_orch.telemetry.adoption import adopted, ranges
from reactive_orch.telemetry.decision import Decision
from reactive_orch.telemetry.rebalance import fields

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

    from reactive_orch.model import Acknowledged, Change, Partition, Snapshot, Turn, Written
    from reactive_orch.postgres.connection import AnyConnection
    from reactive_orch.runtime.handling.runners import Runners

_logger = logging.getLogger("reactive_orch")


async def write_generation(connection: AnyConnection, turn: Turn, snapshot: Snapshot, new: Change) -> Written | None:
    """Write the generation that follows from the snapshot; None when the replica set has moved on.

    What the removed have left behind is ended.
    """
    turn.planned_ns = time.time_ns()
    decision = Decision(turn, snapshot, new)
    noticed = membership.Noticed(turn.member, turn.source, turn.age_s(time.time_ns()), decision.traceparent)
    try:
        written = await membership.change(connection, turn.replica_set, new, noticed)
    except BaseException as error:
        decision.failed(error)
        raise
    decision.written(written)
    orphans = core.orphans(snapshot, new)
    if written and orphans:
        spared = await membership.terminate(connection, orphans)
        if spared:
            words = "%d connections of removed workers could not be ended: no right to"
            _logger.warning(words, spared, extra=fields("spared", turn, snapshot))
    return written


class Adoption:
    """Begins with the snapshot that showed the generation; ends acknowledged, superseded or failed."""

    def __init__(self, turn: Turn, snapshot: Snapshot, runners: Runners, *, resumed: bool) -> None:
        """Compute what moves. `resumed`: acknowledged before, to be held again after a lost connection."""
        self._runners = runners
        self.resumed = resumed
        """It was acknowledged before: there is nothing to tell."""
        self._acknowledging: tuple[int, Acknowledged] | None = None
        self.generation, self.incarnation = snapshot.generation, snapshot.incarnation
        self.due: Mapping[str, frozenset[Partition]] = core.assigned_to(snapshot, turn.member)
        self.done = False
        """Nothing is left to do of it."""
        before, after = _pairs(runners.held), _pairs(self.due)
        self._lost, self._gained, self._kept = before - after, after - before, len(before & after)
        in_flight = _pairs(runners.in_flight)
        self._steps = AdoptionSteps(turn=turn, snapshot=snapshot, in_flight=len(in_flight & self._lost))
        self._facts = self._steps.adopted(time.time_ns(), len(self._lost), len(self._gained), self._kept)

    def is_of(self, snapshot: Snapshot) -> bool:
        """Tell whether it is of this snapshot's generation: in another incarnation the number may be another one's."""
        return (self.generation, self.incarnation) == (snapshot.generation, snapshot.incarnation)

    @property
    def age_s(self) -> float:
        """For how long it has been going on."""
        return self._steps.turn.age_s(time.time_ns())

    def note(self) -> None:
        """Note the time if a step has been done: called whenever a runner has moved."""
        if self.done:
            return
        held, now_ns = _pairs(self._runners.held), time.time_ns()
        if self._steps.finished_ns is None and not self._lost & held:
            self._steps.finished_ns = now_ns
        if self._steps.loaded_ns is None and self._gained <= held:
            self._steps.loaded_ns = now_ns

    async def acknowledge(self, connection: AnyConnection, name: str) -> bool:
        """Record it, of the member in the process of this name; False when there is another generation already."""
        turn, began_ns = self._steps.turn, time.time_ns()
        self._facts = self._steps.adopted(time.time_ns(), len(self._lost), len(self._gained), self._kept)
        by = (turn.member, name)
        answer = await membership.acknowledge(connection, turn.replica_set, by, self.generation, self._facts)
        if answer is not None:
            self._acknowledging = (began_ns, answer)
        return answer is not None

    def end(self, outcome: str) -> str | None:
        """Tell how it ended; return its span's traceparent."""
        self.done = True
        if self.resumed:
            return None
        self._steps.row_wait_s, self._steps.row_waited_for = self._runners.row_wait
        return adopted(self._steps, self._facts, outcome, ranges(self.due), self._acknowledging)

    @property
    def met(self) -> bool:
        """Whether the worker holds exactly what it should."""
        return self._runners.reconciled

    def report(self) -> None:
        """Log it, and who completed the generation."""
        turn, snapshot, held = self._steps.turn, self._steps.snapshot, len(_pairs(self.due))
        _logger.info(
            "generation %d of %s (%s of %s), %d members: worker %s took %d, gave %d, kept %d partitions, holds %d; "
            "adopted in %.0f ms%s",
            snapshot.generation,
            turn.replica_set,
            snapshot.reason.value if snapshot.reason else "",
            ", ".join(map(str, snapshot.subjects)),
            len(snapshot.members),
            turn.member,
            len(self._gained),
            len(self._lost),
            self._kept,
            held,
            self.age_s * 1000,
            self._completion(),
            extra=fields("adopted", turn, snapshot),
        )

    @property
    def completed(self) -> bool:
        """Whether its acknowledgement was the last."""
        return self._completed_at is not None

    @property
    def _completed_at(self) -> datetime | None:
        return self._acknowledging[1].completed_at if self._acknowledging else None

    def _completion(self) -> str:
        """Return what the last to acknowledge says besides."""
        completed_at = self._completed_at
        created_at = self._steps.snapshot.created_at
        if completed_at is None or created_at is None:
            return ""
        return f", settled in {(completed_at - created_at).total_seconds() * 1000:.0f} ms"


def _pairs(by_projection: Mapping[str, Iterable[Partition]]) -> set[tuple[str, Partition]]:
    return {(name, partition) for name, partitions in by_projection.items() for partition in partitions}
