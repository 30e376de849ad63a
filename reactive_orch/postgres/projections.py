"""How a projection stands in its whole replica set: running, paused or halted; where it began, what comes again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

import asyncpg

from reactive_orch.errors import ConfigError
from reactive_orch.model import Subscription
from reactive_orch.postgres import membership
from reactive_orch.postgres.faults import translated
from reactive_orch.postgres.statements import load_statements

if TYPE_CHECKING:
    from collections.abc import Collection
    from datetime import datetime

    from reactive_orch.model.membership import RestingState
    from reactive_orch.postgres.connection import AnyConnection

ProjectionState: TypeAlias = Literal["running", "paused", "halted"]

_SQL = load_statements(Path(__file__).with_suffix(".sql"))


class StateChange(NamedTuple):
    """What is to become of a projection."""

    state: ProjectionState
    reason: str = ""
    by: str = ""


class Rest(NamedTuple):
    """Why a projection does not run."""

    state: RestingState
    reason: str
    by: str
    """Who has paused it, or the worker that has halted or suspended it."""
    since: datetime
    tried_at: datetime | None
    """When a suspended one is tried again; None for the others."""


async def set_state(
    connection: AnyConnection, replica_set: str, of: Subscription, change: StateChange
) -> ProjectionState:
    """Pause, halt or resume a projection; its workers see it at once. A pause is not overwritten by a halt.

    Returns the state before. Raises ConfigError for a projection that is not known.
    """
    values = (replica_set, of.projection, change.state, change.reason, change.by, of.log)
    with translated():
        try:
            before: ProjectionState = await connection.fetchval(_SQL.set_state, *values)
        except asyncpg.InvalidParameterValueError as error:
            raise ConfigError(error.message) from error
    return before


async def serialize(connection: AnyConnection, replica_set: str, of: Subscription) -> tuple[float, bool]:
    """Let the batches of a projection go one at a time for a while, as its handlers have met a deadlock.

    Returns for how many seconds, and whether this begins now; 0 and False for a projection that is not known.
    """
    with translated():
        row = await connection.fetchrow(_SQL.serialize, replica_set, *of)
    assert row is not None, "a function without a set returns one row"
    return row[0] or 0.0, bool(row[1])


async def resting(connection: AnyConnection, replica_set: str) -> dict[Subscription, Rest]:
    """Return the projections of a replica set that do not run."""
    with translated():
        rows = await connection.fetch(_SQL.resting, replica_set)
    return {Subscription(*row[:2]): Rest(*row[2:]) for row in rows}


async def names(connection: AnyConnection, replica_set: str) -> frozenset[str]:
    """Return the projections that are recorded of a replica set."""
    with translated():
        return frozenset(row["name"] for row in await connection.fetch(_SQL.names, replica_set))


async def demand_known(connection: AnyConnection, replica_set: str, projection: str | None = None) -> None:
    """Raise ConfigError, naming those that there are, for a replica set or a projection that no worker has ever had."""
    demand_replica_set(replica_set, await membership.replica_sets(connection))
    if projection is not None:
        known = await names(connection, replica_set)
        if projection not in known:
            raise ConfigError(_unknown(f"replica set {replica_set} has no projection", projection, known))


def demand_replica_set(name: str, known: Collection[str]) -> None:
    """Raise ConfigError, naming those that there are, for a replica set that is none of them."""
    if name not in known:
        raise ConfigError(_unknown("there is no replica set", name, known))


def _unknown(what: str, name: str, known: Collection[str]) -> str:
    others = f"are {', '.join(sorted(known))}" if known else "is none yet"
    return f"{what} {name!r}; there {others}"


async def hindrance(connection: AnyConnection, replica_set: str, of: Subscription) -> str | None:
    """Return why nothing of a projection is handled now: it rests, or no worker runs it. None if nothing is known."""
    with translated():
        row = await connection.fetchrow(_SQL.hindrance, replica_set, *of)
    if row is None:
        return f"replica set {replica_set} has no projection {of.projection}"
    state, served = row
    if not served:
        return f"no worker of {replica_set} runs projection {of.projection}: nothing of it is handled before one does"
    return _RESTING[state].format(of.projection) if state in _RESTING else None


_RESTING = {
    "paused": "projection {} is paused: nothing of it is handled before it is resumed",
    "halted": "projection {} is halted: nothing of it is handled before it is resumed",
    "suspended": "projection {} is suspended: it is tried again now and then, or when it is resumed",
}
