"""Suspect partitions, whose owner was lost without a word; and what workers say they have in hand (protocol 7.11)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from reactive_orch.model.keys import Marker
from reactive_orch.postgres.faults import translated
from reactive_orch.postgres.statements import load_statements

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from reactive_orch.model import Event, Partition, Subscription
    from reactive_orch.postgres.connection import AnyConnection

_SQL = load_statements(Path(__file__).with_suffix(".sql"))


class Suspicions:
    """Those of one subscription."""

    def __init__(self, replica_set: str, subscription: Subscription) -> None:
        """Ask nothing yet."""
        self._of = (replica_set, *subscription)

    async def found(
        self, connection: AnyConnection, partitions: Collection[Partition], *, awaited: bool
    ) -> dict[Partition, Marker | None]:
        """Return the suspect ones of these partitions, each with what its last owner had in hand when it was lost.

        `awaited`: others held them when they were first wanted.
        """
        with translated():
            rows = await connection.fetch(_SQL.found, *self._of, sorted(partitions), awaited)
        return {row[0]: None if row[1] is None else Marker(*row[1:]) for row in rows}

    async def forget(self, connection: AnyConnection, partitions: Collection[Partition]) -> None:
        """Let these partitions be suspect no more."""
        with translated():
            await connection.execute(_SQL.forget, *self._of, sorted(partitions))

    async def put(self, connection: AnyConnection, worker: str, lane: int, events: Sequence[Event]) -> None:
        """Say that a lane of a worker has these events in hand, and no others."""
        partitions = sorted({event.partition for event in events})
        values = (worker, lane, partitions, events[-1].global_position, len(events))
        with translated():
            await connection.execute(_SQL.put, *self._of, *values)

    async def erase(self, connection: AnyConnection, worker: str, lane: int) -> None:
        """Say that a lane of a worker has nothing in hand; in a batch, if it is committed."""
        await connection.execute(_SQL.erase, *self._of, worker, lane)
