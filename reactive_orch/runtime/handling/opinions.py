"""Second opinions: what other workers would park is tried here, and what others say of this one (protocol 7.13).

An attempt of a key whose partition another worker owns is a batch that holds that partition's checkpoint, as any other
attempt. It waits for the owner's batch to end; the owner then takes the row for held, and loads it again.
"""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

from reactive_orch.errors import Superseded
from reactive_orch.postgres.dead_letters import FailingKeys
from reactive_orch.postgres.outages import Outages

if TYPE_CHECKING:
    from reactive_orch.core.progress import Progress
    from reactive_orch.runtime.handling.aside import Aside
    from reactive_orch.runtime.handling.scope import Scope

MARGIN_S = 10.0
"""An attempt has the handler's time-out, and this for the rest."""


class SecondOpinions:
    """Those that one lane gives and hears."""

    def __init__(self, scope: Scope, progress: Progress, aside: Aside) -> None:
        """Know of none."""
        self._scope, self._progress, self._aside = scope, progress, aside
        self._keys = FailingKeys(scope.replica_set, scope.subscription)
        self._outages = Outages(scope.replica_set, scope.subscription, scope.node.label)
        self._wanted = self._told = False

    def want(self) -> None:
        """Give one at the next step: another worker has asked."""
        self._wanted = True

    def glance(self) -> None:
        """Look at the next step what others say, if any of them was asked."""
        self._told = self._scope.fitness.waits

    async def step(self) -> None:
        """Hear what there is to hear, and give one opinion that is wanted."""
        if self._told:
            self._told = False
            await self._hear()
        if self._wanted:
            self._wanted = await self._give()

    async def _hear(self) -> None:
        fitness = self._scope.fitness
        fitness.begin(self._progress.incarnation)
        async with self._scope.database.coordination(self._progress.incarnation) as connection:
            answers = await self._keys.answers(connection, fitness.asked)
            if fitness.suspended_at is not None and self._scope.resting() is None:
                elsewhere = await self._outages.resumed_elsewhere(connection)
                fitness.resumed(time.monotonic(), elsewhere=elsewhere)
        for key, handled in answers.items():
            fitness.answered(key, handled=handled)
        if fitness.unfit:
            self._scope.step_down()

    async def _give(self) -> bool:
        """Try a key that another worker would park; return whether there was one: then there may be more."""
        label = self._scope.node.label
        async with self._scope.database.coordination(self._progress.incarnation) as connection:
            key = await self._keys.take_up(connection, label, self._scope.timeout_s + MARGIN_S)
        if key is None:
            return False
        tried = False
        with contextlib.suppress(Superseded):
            tried = await self._aside.try_key(key)
        if not tried:
            async with self._scope.database.coordination(self._progress.incarnation) as connection:
                await self._keys.give_back(connection, key, label)
        return True
