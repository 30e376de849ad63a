"""The schema's steps: numbered files, applied forward only, one migration at a time.

Guarantees: the steps of one call are applied in one transaction under an advisory lock, so a second migration waits and
then finds nothing to do, and a failed one leaves nothing behind. A step that cannot get a table's lock in time gives
way to the running workers and is tried again. What is only a hint and broken, the bell, is mended on the way. PUBLIC
may do nothing with the schema afterwards.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import asyncpg

from reactive_orch.errors import ConfigError, MissingRight, Superseded
from reactive_orch.postgres.faults import translated
from reactive_orch.postgres.statements import load_statements

if TYPE_CHECKING:
    from reactive_orch.postgres.connection import AnyConnection

PARTITIONS_DEFAULT = 64
PARTITIONS_MAX = 1024

_SQL = load_statements(Path(__file__).with_suffix(".sql"))
_STEPS = sorted((Path(__file__).parent / "schema").glob("[0-9]*.sql"))
NEWEST = int(_STEPS[-1].name.split("_")[0])

_ATTEMPTS = 10
_PAUSE_S = 0.5


async def migrate(connection: AnyConnection, partitions: int = PARTITIONS_DEFAULT) -> list[str]:
    """Apply the steps that are missing, mend what is broken or open to all; return what was done, one line each.

    `partitions` counts only when the log is created: a power of two up to 1024. Raises ConfigError (also when a step
    applied is not the one that this program knows), Unavailable, or Superseded when the locks could not be had in any
    of ten attempts.
    """
    if partitions not in {1 << n for n in range(11)}:
        msg = f"the number of partitions must be a power of two from 1 to {PARTITIONS_MAX}, not {partitions}"
        raise ConfigError(msg)
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            return await _apply_missing(connection, partitions)
        except MissingRight as error:
            msg = (
                f"the database role lacks a right: {error.lacking}; run `python -m reactive_orch migrate` as the owner "
                "of the schema, or as one who may make it"
            )
            raise ConfigError(msg) from error
        except Superseded:
            if attempt == _ATTEMPTS:
                raise
            await anyio.sleep(_PAUSE_S)
    return []


async def _apply_missing(connection: AnyConnection, partitions: int) -> list[str]:
    with translated():
        async with connection.transaction():
            await connection.execute(_SQL.pin_search_path)
            await connection.execute(_SQL.migration_lock)
            if not await connection.fetchval(_SQL.is_recorded):  # who may not make a schema may find nothing to do
                await connection.execute(_SQL.schema)
                await connection.execute(_SQL.schema_steps_table)
            await connection.fetchval(_SQL.choose_partitions, str(partitions))
            done = await _newest(connection)
            missing = [step for step in _STEPS if _number(step) > done]
            for step in missing:
                await connection.execute(step.read_text(encoding="utf-8"))
                await connection.execute(_SQL.record_step, _number(step), _digest(step))
            if not await connection.fetchval(_SQL.is_ours):
                return []  # a worker's role, to which nothing here is left to do
            mended = await connection.fetchval(_SQL.mend_bell)
            closed = await connection.fetchval(_SQL.close_to_public)
    return [f"applied schema step {step.stem}" for step in missing] + [
        *(f"made anew: {what}" for what in mended),
        *(f"taken from PUBLIC: all rights on {what}" for what in closed if not missing),  # what is new, nobody has had
    ]


async def _newest(connection: AnyConnection) -> int:
    """Return the number of the newest step applied, 0 for none. Raises ConfigError when one has another text here."""
    applied = {row["version"]: row["digest"] for row in await connection.fetch(_SQL.applied)}
    for step in _STEPS:
        if applied.get(_number(step), _digest(step)) != _digest(step):
            msg = (
                f"step {_number(step)} of the schema in this database is not that of this program: one of the two was "
                "made during development. Take the program that made it, or drop the schema with all its events "
                "(DROP SCHEMA reactive_orch CASCADE) and run `python -m reactive_orch migrate` with the same address"
            )
            raise ConfigError(msg)
    return max(applied, default=0)


def _number(step: Path) -> int:
    return int(step.name.split("_")[0])


def _digest(step: Path) -> str:
    return hashlib.sha256(step.read_text(encoding="utf-8").encode()).hexdigest()


async def check(connection: AnyConnection) -> None:
    """Raise ConfigError unless the schema is there and has every step this program knows."""
    version: int | None
    try:
        with translated():
            version = await _newest(connection)
    except ConfigError as error:
        if not isinstance(error.__cause__, asyncpg.UndefinedTableError):
            raise
        version = None
    if version is None or version < NEWEST:
        found = "there is no schema reactive_orch" if version is None else f"the schema is at step {version}"
        msg = (
            f"{found} in this database and this program needs step {NEWEST}: "
            "run `python -m reactive_orch migrate` with the same address"
        )
        raise ConfigError(msg)
