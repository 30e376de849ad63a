"""Rewinds: what one would do, and doing it. The function in the database decides both, under the checkpoints' locks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import asyncpg

from reactive_orch.errors import ConfigError, ReactiveOrchError, described, place_of
from reactive_orch.postgres.faults import translated
from reactive_orch.postgres.statements import load_statements

if TYPE_CHECKING:
    from datetime import datetime

    from reactive_orch.model import LogName, Position, ResetHook, Subscription
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


class Known(NamedTuple):
    """What is recorded of a projection that a rewind depends on."""

    proposed: str | None
    """The filter that a refused worker wanted, as JSON; the rewind makes it the recorded one."""
    former: str | None
    """One that a refused worker wanted, and that was given up before: the rewind does not make it the recorded one."""
    estranged: bool
    """Its checkpoints were made on another log than its log is now."""
    resets: bool
    """Its code has a reset hook."""
    replays: bool
    """Replayed events come to its handler."""


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


async def rewind(  # noqa: PLR0913 - what it is told
    connection: AnyConnection,
    replica_set: str,
    subscription: Subscription,
    to: Position | None,
    *,
    skip_unhandled: bool = False,
    reset: ResetHook | None = None,
    planned: Known | None = None,
) -> Effects:
    """Set all positions of a projection (None: keep them), raise the epoch, accept the filter that was proposed.

    A filter that was given up before is accepted only when the positions are kept.

    In the same transaction `reset` is called, while nobody handles anything for the projection. Returns what the rewind
    did. Raises ConfigError for a position that is not settled, for an unknown projection, when positions to keep were
    deleted or lie beyond the log, and for a position that leaves out events that have not been handled, unless told
    to, or when another filter would be accepted than was `planned`; ReactiveOrchError when `reset` fails.
    """
    accepts = None if planned is None else planned.proposed or "null"
    with translated():
        async with connection.transaction():
            await connection.execute(_SQL.own_path)
            try:
                row = await connection.fetchrow(_SQL.rewind, replica_set, *subscription, to, skip_unhandled, accepts)
            except asyncpg.InvalidParameterValueError as error:
                raise ConfigError(error.message) from error
            if reset is not None:
                await _call(reset, connection)
    assert row is not None, "the function returns one row"
    return Effects(*row)


async def _call(reset: ResetHook, connection: AnyConnection) -> None:
    transaction = await connection.fetchval(_SQL.transaction)
    await connection.execute(_SQL.users_path)
    try:
        await reset(connection)
        same = connection.is_in_transaction() and transaction == await connection.fetchval(_SQL.transaction)
    except (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError):
        raise  # somebody reads what it empties: all of it is to be done again
    except (Exception, SystemExit) as error:
        at = f" at {place}" if (place := place_of(error)) else ""
        msg = f"the reset hook failed, and nothing was done: {described(error)}{at}"
        raise ReactiveOrchError(msg) from error
    if not same:
        msg = "the reset hook has ended the transaction that it was given, and may be half done: rewind again"
        raise ReactiveOrchError(msg)


async def known(connection: AnyConnection, replica_set: str, subscription: Subscription, to: Position | None) -> Known:
    """Return what is recorded of a projection that a rewind depends on. Raises ConfigError for an unknown one."""
    with translated():
        row = await connection.fetchrow(_SQL.known, replica_set, *subscription, to)
    if row is None:
        msg = f"replica set {replica_set!r} has no projection {subscription.projection!r}"
        raise ConfigError(msg)
    return Known(*row)


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
