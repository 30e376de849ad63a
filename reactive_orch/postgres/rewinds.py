"""Rewinds: what one would do, and doing it. The function in the database decides both, under the checkpoints' locks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import asyncpg

from reactive_orch.errors import ConfigError
from reactive_orch.postgres.faults import translated
from reactive_orch.postgres.statements import load_statements

if TYPE_CHECKING:
    from datetime import datetime

    from reactive_orch.model import LogName, Position, Subscription
    from reactive_orch.postgres.connection import AnyConnection

_SQL = load_statements(Path(__file__).with_suffix(".sql"))


class Effects(NamedTuple):
    """What a rewind does."""

    partitions: int
    unknown: int
    """Partitions of which nobody knows what has been handled: not counted next."""
    again: int
    """Events that are handled again."""
    left_out: int
    """Events that have not been handled, and are left out."""
    exact: bool
    """Whether these two were counted; they are estimated from the first 100,000 events else."""
    keys: int
    """Failing keys of which events that wait are taken off."""
    letters_again: int
    """How many of these come again, since they are behind the target."""
    letters_dropped: int
    """How many do not: the new filter leaves them out, or the log is another one now."""


async def effects(
    connection: AnyConnection, replica_set: str, subscription: Subscription, to: Position | None
) -> Effects:
    """Return what a rewind would do as things stand. Raises ConfigError for an unknown projection."""
    with translated():
        try:
            row = await connection.fetchrow(_SQL.effects, replica_set, *subscription, to)
        except asyncpg.InvalidParameterValueError as error:
            raise ConfigError(error.message) from error
    assert row is not None, "the function returns one row"
    return Effects(*row)


async def rewind(
    connection: AnyConnection,
    replica_set: str,
    subscription: Subscription,
    to: Position | None,
    *,
    skip_unhandled: bool = False,
) -> Effects:
    """Set all positions of a projection (None: keep them), raise the epoch, accept the filter that was proposed.

    Returns what that did. Raises ConfigError for a position that is not settled, for an unknown projection, when
    positions to keep were deleted or lie beyond the log, and for a position that leaves out events that have not been
    handled, unless told to.
    """
    with translated():
        try:
            row = await connection.fetchrow(_SQL.rewind, replica_set, *subscription, to, skip_unhandled)
        except asyncpg.InvalidParameterValueError as error:
            raise ConfigError(error.message) from error
    assert row is not None, "the function returns one row"
    return Effects(*row)


async def proposed(connection: AnyConnection, replica_set: str, subscription: Subscription) -> str | None:
    """Return the filter that a refused worker wanted, as JSON; a rewind makes it the recorded one."""
    with translated():
        text: str | None = await connection.fetchval(_SQL.proposed, replica_set, *subscription)
    return text


async def settled_end(connection: AnyConnection, log: LogName) -> Position:
    """Return the greatest position of a log that a checkpoint may be set to."""
    with translated():
        return int(await connection.fetchval(_SQL.settled_end, log))


async def position_before(connection: AnyConnection, log: LogName, time: datetime) -> Position:
    """Return the position of a log behind which all comes that was created at this time or later.

    At most the settled end.
    """
    with translated():
        return int(await connection.fetchval(_SQL.position_before, log, time))


async def is_estranged(connection: AnyConnection, replica_set: str, subscription: Subscription) -> bool:
    """Tell whether a projection's checkpoints were made on another log than its log is now."""
    with translated():
        return bool(await connection.fetchval(_SQL.is_estranged, replica_set, *subscription))
