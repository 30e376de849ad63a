"""Batches of several subscriptions in one transaction: one swap moves the checkpoints of all (protocol 3.10)."""

from __future__ import annotations

from hashlib import sha256
from itertools import chain, repeat
from pathlib import Path
from typing import TYPE_CHECKING

from reactive_orch.postgres.checkpoints import Batches, Moved
from reactive_orch.postgres.database import STATEMENT_TIMEOUT_S
from reactive_orch.postgres.statements import load_statements

if TYPE_CHECKING:
    from collections.abc import Sequence

    from reactive_orch.model import Subscription, Swap
    from reactive_orch.postgres.connection import AnyConnection

_SQL = load_statements(Path(__file__).with_suffix(".sql"))


class SharedBatches(Batches):
    """One transaction for subscriptions of one log, each with its own checkpoints. An async context manager."""

    swap_statement = _SQL.swap

    def __init__(self, connection: AnyConnection, replica_set: str, parts: Sequence[tuple[Subscription, int]]) -> None:
        """`parts`: of which subscription how many swaps are, in the order in which `batch` gets them."""
        super().__init__(connection, replica_set, parts[0][0])
        self._projections = list(chain.from_iterable(repeat(each.projection, count) for each, count in parts))

    async def _move(self, swaps: Sequence[Swap], token: str) -> Moved:
        replica_set, _, log = self._of
        moves = [(s.partition, s.expected.position, s.expected.epoch, s.target) for s in swaps]
        seal = sha256(token.encode()).digest()
        values = (replica_set, log, self._projections, *zip(*moves, strict=True), seal)
        row = await self._connection.fetchrow(_SQL.swap, *values, timeout=STATEMENT_TIMEOUT_S)
        assert row is not None, "an aggregate returns one row"
        return Moved(*row)
