"""A suspended projection is tried again by itself: one failing event, by one worker, after pauses that grow.

When a trial is due, and whose it is, is decided in the database: so it is one at a time, and if its worker dies the
next one follows when that has had its time.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from reactive_orch.core.outage import PAUSES_S
from reactive_orch.errors import Outage
from reactive_orch.postgres import outages

if TYPE_CHECKING:
    from reactive_orch.core.progress import Progress
    from reactive_orch.model.membership import Resting
    from reactive_orch.runtime.handling.aside import Aside
    from reactive_orch.runtime.handling.scope import Scope

MARGIN_S = 10.0
"""A trial has the handler's time-out, and this for the rest."""


class Trials:
    """Those of one lane."""

    def __init__(self, scope: Scope, progress: Progress, aside: Aside) -> None:
        """Try nothing yet."""
        self._scope, self._progress, self._aside = scope, progress, aside

    async def pause_s(self, resting: Resting) -> float:
        """Return in how many seconds to look again, when what is to be done by a projection that rests has been done.

        Raises Outage where somebody waits for the end of a suspended one.
        """
        if resting.state != "suspended":
            return math.inf
        if self._scope.until_idle:
            raise Outage(self._scope.projection.name, resting.reason)
        due_in_s = await self._try()
        return math.inf if due_in_s is None else due_in_s

    async def _try(self) -> float | None:
        """Try a failing event of the lane, if it is time and no other lane's turn; return when to look again."""
        scope, of = self._scope, (self._scope.replica_set, self._scope.subscription)
        async with scope.database.coordination(self._progress.incarnation) as connection:
            trial = await outages.claim(connection, *of, self._progress.partitions, scope.timeout_s + MARGIN_S)
        if trial.key is None:
            return trial.due_in_s
        succeeded = await self._aside.try_out(trial.key)
        async with scope.database.coordination(self._progress.incarnation) as connection:
            return await outages.end_trial(connection, *of, PAUSES_S, succeeded=succeeded)
