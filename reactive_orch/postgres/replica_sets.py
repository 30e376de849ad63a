"""Replica sets as people keep them: which there are, and those that are gone for good removed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import asyncpg

from reactive_orch.errors import ConfigError
from reactive_orch.model import OWN_LOG
from reactive_orch.postgres.faults import translated
from reactive_orch.postgres.statements import load_statements

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from reactive_orch.postgres.connection import AnyConnection

_SQL = load_statements(Path(__file__).with_suffix(".sql"))


class ReplicaSet(NamedTuple):
    """One that is recorded, whether or not anybody works for it."""

    name: str
    generation: int
    since: datetime | None
    """When its generation was written; None if it has none yet."""
    workers: int
    """How many live, or did so a moment ago."""
    projections: Sequence[str]
    failing_keys: int


class Removed(NamedTuple):
    """What went with a replica set, or with a projection of it."""

    projections: int
    waiting: int
    """Events that waited behind a failed one."""


async def listed(connection: AnyConnection) -> list[ReplicaSet]:
    """Return all of them, by name."""
    with translated():
        return [ReplicaSet(*row) for row in await connection.fetch(_SQL.listed)]


async def remove(connection: AnyConnection, name: str, projection: str | None = None) -> Removed:
    """Forget a replica set, or one projection of it: where it stands, its failing keys and what waits of them.

    Raises ConfigError for one that is not known, or while a worker lives that runs it.
    """
    with translated():
        try:
            row = await connection.fetchrow(_SQL.remove, name, projection, OWN_LOG)
        except (asyncpg.InvalidParameterValueError, asyncpg.ObjectInUseError) as error:
            raise ConfigError(error.message) from error
    assert row is not None, "a function without a set returns one row"
    return Removed(*row)
