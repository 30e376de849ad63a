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


class Suspension(NamedTuple):
    """Why a projection is suspended, and by whom."""

    reason: str
    by: str
    failing_for_s: float
    """For how long its keys have been failing alike: those that were parked meanwhile are tried again with the rest."""


class Trial(NamedTuple):
    """Whether one is due."""

    due_in_s: float | None
    """In how many seconds to look again; None when the projection is not suspended."""
    key: DueKey | None
    """What the caller is to try now, and nobody else."""


async def suspend(
    connection: AnyConnection, replica_set: str, of: Subscription, suspension: Suspension, pauses_s: Sequence[float]
) -> bool:
    """Let a running projection rest until a trial succeeds; its workers see it at once. Returns whether it was running.

    The pauses before each trial are longer from the beginning if it has hardly run since the last time.
    """
    values = (replica_set, *of, *suspension, list(pauses_s))
    with translated():
        return bool(await connection.fetchval(_SQL.suspend, *values))


async def claim(
    connection: AnyConnection, replica_set: str, of: Subscription, partitions: Collection[Partition], for_s: float
) -> Trial:
    """Ask whether a trial is due, of a failing key of these partitions; if so it is the caller's for that long.

    A projection that has nothing left to be tried runs again.
    """
    with translated():
        row = await connection.fetchrow(_SQL.claim, replica_set, *of, sorted(partitions), for_s)
    assert row is not None, "a function with OUT parameters returns one row"
    return Trial(row[0], None if row[1] is None else DueKey(*row[1:]))


async def end_trial(
    connection: AnyConnection, replica_set: str, of: Subscription, pauses_s: Sequence[float], *, succeeded: bool
) -> float | None:
    """Let the projection run again if its trial has succeeded; else return in how many seconds the next one is due."""
    with translated():
        due_in_s: float | None = await connection.fetchval(_SQL.end_trial, replica_set, *of, list(pauses_s), succeeded)
    return due_in_s
