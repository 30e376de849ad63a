"""Recording that a projection does not go on: else its next owner would run into the same wall."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from reactive_orch.core.keys import too_many
from reactive_orch.core.outage import PAUSES_S
from reactive_orch.errors import Outage, TooMuchWaits
from reactive_orch.model.membership import Resting
from reactive_orch.postgres import dead_letters, projections
from reactive_orch.postgres.outages import Outages

if TYPE_CHECKING:
    from reactive_orch.errors import ProjectionFailed
    from reactive_orch.incarnation import Incarnation
    from reactive_orch.runtime.handling.scope import Scope


async def record(scope: Scope, error: ProjectionFailed, incarnation: Incarnation) -> Resting | None:
    """Record that the projection is halted, or suspended; return how it rests.

    None if somebody else has decided about it meanwhile: its workers see that soon. Raises Unavailable, and Superseded
    when this incarnation is over.
    """
    of, by = (scope.replica_set, scope.subscription), scope.node.label
    async with scope.database.coordination(incarnation) as connection:
        if isinstance(error, TooMuchWaits) and not too_many(await dead_letters.waiting(connection, *of)):
            return None  # somebody has let it run, and with that let as much again wait, since this lane looked
        if not isinstance(error, Outage):
            await projections.set_state(connection, *of, projections.StateChange("halted", str(error), by))
            return Resting("halted")
        outages, others = Outages(*of, by), scope.others()
        suspended = await outages.suspend(connection, error.reason, error.failing_for_s, PAUSES_S, others=others)
        scope.outage.over()  # only now: if this cannot be recorded, the next failure says so again
        if not suspended:
            return None
        scope.fitness.suspended_at = time.monotonic() if others else None
        return Resting("suspended", error.reason)
