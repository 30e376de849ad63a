"""A suspended projection is tried again by itself: one failing event, by one worker, after pauses that grow.

If that fails, the next event of all is tried, too: those that have failed may be bad, and others not.

When a trial is due, and whose it is, is decided in the database: so it is one at a time, and if its worker dies the
next one follows at once.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from reactive_orch.core.outage import PAUSES_S
from reactive_orch.errors import Outage
from reactive_orch.postgres.outages import Outages
from reactive_orch.runtime.handling.opinions import MARGIN_S, SecondOpinions

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from reactive_orch.core.progress import Progress
    from reactive_orch.model.membership import Resting
    from reactive_orch.postgres.outages import Trial
    from reactive_orch.runtime.handling.aside import Aside
    from reactive_orch.runtime.handling.scope import Scope


class Trials:
    """Those of one lane."""

    def __init__(self, scope: Scope, progress: Progress, aside: Aside, go_on: Callable[[], Awaitable[bool]]) -> None:
        """Try nothing yet. `go_on` handles the lane's next event, and tells whether that has succeeded."""
        self._scope, self._progress, self._aside, self._go_on = scope, progress, aside, go_on
        self.opinions = SecondOpinions(scope, progress, aside)
        self._outages = Outages(scope.replica_set, scope.subscription, scope.node.label)
        self._claimed: Resting | None = None
        """The suspension of which a trial is this lane's, and has not been ended."""

    async def pause_s(self, resting: Resting) -> float:
        """Return in how many seconds to look again, when what is to be done by a projection that rests has been done.

        Raises Outage where somebody waits for the end of a suspended one.
        """
        if resting.state != "suspended":
            return math.inf
        if self._scope.until_idle:
            raise Outage(self._scope.projection.name, resting.reason)
        due_in_s = await self._try(resting)
        return math.inf if due_in_s is None else due_in_s

    async def _try(self, resting: Resting) -> float | None:
        """Try a failing event, if it is time and no other lane's turn; return when to look again."""
        trial = await self._claim(resting)
        if trial.key is None:
            return trial.due_in_s
        succeeded = await self._aside.try_out(trial.key) or await self._go_on()
        async with self._scope.database.coordination(self._progress.incarnation) as connection:
            due_in_s = await self._outages.end_trial(connection, PAUSES_S, succeeded=succeeded)
        self._claimed = None
        return due_in_s

    async def _claim(self, resting: Resting) -> Trial:
        """Return what to try now, or when to look again; first give back what was claimed when a trial broke off.

        If others run the projection, too, it may be a key of any partition: so the first is not tried where all failed.
        """
        scope = self._scope
        partitions = None if scope.others() else self._progress.partitions
        async with scope.database.coordination(self._progress.incarnation) as connection:
            if self._claimed is resting:  # else that suspension is over, and with it its trial
                await self._outages.give_back(connection)
            self._claimed = None
            trial = await self._outages.claim(connection, partitions, 2 * scope.timeout_s + MARGIN_S)
        if trial.key is not None:
            self._claimed = resting
        return trial
