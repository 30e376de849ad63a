"""A suspended projection is tried again by itself: one failing event, by one worker, after pauses that grow.

If that fails, the next event of all is tried, too: those that have failed may be bad, and others not.

When a trial is due, and whose it is, is decided in the database: so it is one at a time, and if its worker dies the
next one follows at once.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from reactive_orch.core.outage import PAUSES_S
from reactive_orch.errors import Outage, Superseded
from reactive_orch.postgres.outages import Outages
from reactive_orch.runtime.handling.opinions import MARGIN_S, SecondOpinions

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from reactive_orch.core.progress import Progress
    from reactive_orch.model.membership import Resting
    from reactive_orch.runtime.handling.aside import Aside
    from reactive_orch.runtime.handling.scope import Scope


class Trials:
    """Those of one lane."""

    def __init__(self, scope: Scope, progress: Progress, aside: Aside, go_on: Callable[[], Awaitable[bool]]) -> None:
        """Try nothing yet. `go_on` handles the lane's next event, and tells whether that has succeeded."""
        self._scope, self._progress, self._aside, self._go_on = scope, progress, aside, go_on
        self.opinions = SecondOpinions(scope, progress, aside)
        self._outages = Outages(scope.replica_set, scope.subscription, scope.node.label)

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
        """Try a failing event, if it is time and no other lane's turn; return when to look again.

        If others run the projection, too, it may be one of any partition: so the first is not tried where all failed.
        """
        scope = self._scope
        partitions = None if scope.others() else self._progress.partitions
        async with scope.database.coordination(self._progress.incarnation) as connection:
            trial = await self._outages.claim(connection, partitions, 2 * scope.timeout_s + MARGIN_S)
        if trial.key is None:
            return trial.due_in_s
        try:
            succeeded = await self._aside.try_out(trial.key) or await self._go_on()
        except Superseded:
            async with scope.database.coordination(self._progress.incarnation) as connection:
                await self._outages.give_back(connection)
            raise
        async with scope.database.coordination(self._progress.incarnation) as connection:
            return await self._outages.end_trial(connection, PAUSES_S, succeeded=succeeded)
