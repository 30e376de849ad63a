"""Recording that a projection does not go on: else its next owner would run into the same wall."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reactive_orch.core.outage import PAUSES_S
from reactive_orch.errors import Outage
from reactive_orch.model.membership import Resting
from reactive_orch.postgres import outages, projections

if TYPE_CHECKING:
    from reactive_orch.errors import ProjectionFailed
    from reactive_orch.runtime.handling.scope import Scope


async def record(scope: Scope, error: ProjectionFailed) -> Resting | None:
    """Record that the projection is halted, or suspended; return how it rests.

    None if somebody else has decided about it meanwhile: its workers see that soon.
    """
    of, by = (scope.replica_set, scope.subscription), scope.node.label
    async with scope.database.coordination() as connection:
        if not isinstance(error, Outage):
            await projections.set_state(connection, *of, projections.StateChange("halted", str(error), by))
            return Resting("halted")
        suspension = outages.Suspension(error.reason, by, error.failing_for_s)
        suspended = await outages.suspend(connection, *of, suspension, PAUSES_S)
        return Resting("suspended", error.reason) if suspended else None
