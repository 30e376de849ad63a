"""What the page shows besides what `status` does: rebalances, causes of failures, where keys are parked."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

from reactive_orch.model import Subscription
from reactive_orch.model.keys import Cause
from reactive_orch.model.membership import AdoptionRow, GenerationRow
from reactive_orch.postgres.faults import translated
from reactive_orch.postgres.statements import load_statements

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from reactive_orch.model import Partition
    from reactive_orch.postgres.connection import AnyConnection

_SQL = load_statements(Path(__file__).with_suffix(".sql"))

CAUSES_MOST, KEYS_MOST = 20, 1_000
_OURS = re.escape(f"{Path(__file__).parents[1]}/")
_OWN_LINE = rf'.*(File "(?!{_OURS})/(?:(?!/(?:site|dist)-packages/|/lib/python3)[^"])*", line [0-9]+)'
"""A line of a traceback that is of a user's own file: it has a path, and is neither ours nor installed."""


async def replica_sets(connection: AnyConnection) -> list[str]:
    """Return the names of all replica sets."""
    with translated():
        return [row[0] for row in await connection.fetch(_SQL.replica_sets)]


async def rebalances(
    connection: AnyConnection, replica_set: str, first: int
) -> list[tuple[GenerationRow, Sequence[AdoptionRow]]]:
    """Return the last generations of a replica set, from this number on, the oldest first: each with its adoptions."""
    with translated():
        generations = [GenerationRow(*row) for row in await connection.fetch(_SQL.generations, replica_set, first)][
            ::-1
        ]
        if not generations:
            return []
        adoptions: defaultdict[int, list[AdoptionRow]] = defaultdict(list)
        for number, *row in await connection.fetch(_SQL.adoptions, replica_set, generations[0].number):
            adoptions[number].append(AdoptionRow(*row))
    return [(each, adoptions[each.number]) for each in generations]


async def parked(connection: AnyConnection, replica_set: str) -> Mapping[Subscription, Mapping[Partition, int]]:
    """Return how many keys are parked, by projection and partition; what has none is not there."""
    found: defaultdict[Subscription, dict[Partition, int]] = defaultdict(dict)
    with translated():
        for projection, log, partition, keys in await connection.fetch(_SQL.parked, replica_set):
            found[Subscription(projection, log)][partition] = keys
    return found


async def failing(connection: AnyConnection, replica_set: str) -> int:
    """Return a number that is another one when other keys fail, or one has failed again."""
    with translated():
        return int(await connection.fetchval(_SQL.failing, replica_set))


async def causes(connection: AnyConnection, replica_set: str) -> tuple[list[Cause], int]:
    """Return what the last thousand keys have failed with, the gravest first, and how many causes more there are."""
    with translated():
        rows = await connection.fetch(_SQL.causes, replica_set, CAUSES_MOST, KEYS_MOST, _OWN_LINE)
    found = [Cause(*row[:-1]) for row in rows]
    return found, rows[0][-1] - len(rows) if rows else 0
