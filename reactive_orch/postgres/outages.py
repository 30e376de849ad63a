"""Suspended projections: what their handlers need is away. When one of their events is tried, and by whom."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from reactive_orch.model.keys import DueKey
from reactive_orch.postgres.faults import translated
from reactive_orch.postgres.statements import load_statements

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from reactive_orch.model import Partition, Subscription
    from reactive_orch.postgres.connection import AnyConnection

_SQL = load_statements(Path(__file__).with_suffix(".sql"))


class Trial(NamedTuple):
    """Whether one is due."""

    due_in_s: float | None
    """In how many seconds to look again; None when the projection is not suspended."""
    key: DueKey | None
    """What the caller is to try now, and nobody else."""


class Outages:
    """Those of one subscription, as one process meets them."""

    def __init__(self, replica_set: str, subscription: Subscription, by: str) -> None:
        """Ask nothing yet. `by` is the process."""
        self._of, self._by = (replica_set, *subscription), by

    async def suspend(
        self, connection: AnyConnection, reason: str, failing_for_s: float, pauses_s: Sequence[float], *, others: bool
    ) -> bool:
        """Let a running projection rest until a trial succeeds; its workers see it at once. Returns whether it ran.

        Its keys have been failing alike for `failing_for_s`: those that were parked meanwhile are tried again with the
        rest. The pauses before each trial are longer from the beginning if it has hardly run since the last time. But
        if `others` run it, too, one of them tries it at once.
        """
        values = (*self._of, reason, self._by, failing_for_s, list(pauses_s), others)
        with translated():
            return bool(await connection.fetchval(_SQL.suspend, *values))

    async def claim(self, connection: AnyConnection, partitions: Collection[Partition] | None, for_s: float) -> Trial:
        """Ask whether a trial is due, of a failing key of these partitions; if so it is the caller's for that long.

        `partitions` is None for a key of any, whoever owns it. A projection that has nothing left to be tried runs
        again.
        """
        of_partitions = None if partitions is None else sorted(partitions)
        with translated():
            row = await connection.fetchrow(_SQL.claim, *self._of, of_partitions, self._by, for_s)
        assert row is not None, "a function with OUT parameters returns one row"
        return Trial(row[0], None if row[1] is None else DueKey(*row[1:])._replace(elsewhere=partitions is None))

    async def give_back(self, connection: AnyConnection) -> None:
        """Say that a trial that was claimed was not made. Nothing happens if it is another process's by now."""
        with translated():
            await connection.execute(_SQL.give_back, *self._of, self._by)

    async def end_trial(self, connection: AnyConnection, pauses_s: Sequence[float], *, succeeded: bool) -> float | None:
        """Let the projection run again if its trial has succeeded; else return in how many seconds to try again.

        A trial in vain says nothing when its time was over, and the next one is another process's.
        """
        with translated():
            values = (*self._of, list(pauses_s), succeeded, self._by)
            due_in_s: float | None = await connection.fetchval(_SQL.end_trial, *values)
        return due_in_s

    async def resumed_elsewhere(self, connection: AnyConnection) -> bool:
        """Tell whether the projection runs again since a trial of another process has succeeded."""
        with translated():
            by: str | None = await connection.fetchval(_SQL.resumed_by, *self._of)
        return by not in {None, self._by}
