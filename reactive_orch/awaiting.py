"""Waiting until what was appended is handled: for whoever answers a request with what it has changed."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

from reactive_orch.core.awaiters import SESSIONS, reason
from reactive_orch.errors import NotHandled
from reactive_orch.model import OWN_LOG, Subscription, check_name
from reactive_orch.model.awaiter import Wanted
from reactive_orch.model.projections import is_number, is_whole
from reactive_orch.postgres.handled import first_unhandled, listening, standing
from reactive_orch.postgres.toolkits import SyncToolkit, toolkit_of

if TYPE_CHECKING:
    from reactive_orch.model import Position
    from reactive_orch.postgres.connection import AnyConnection
    from reactive_orch.postgres.toolkits import AsyncTransactional

LOOK_AGAIN_S, LOOK_AGAIN_MOST_S = 0.25, 2.0
"""Without an answer it looks after a while, and after twice as long each time, up to this: an answer may be lost, with
the connection of the worker that would give it, say."""


async def handled(  # noqa: PLR0913 - which position of what, and for how long
    connection: AnyConnection | AsyncTransactional,
    replica_set: str,
    projection: str,
    position: Position | Iterable[Position],
    *,
    timeout: float = 10.0,  # noqa: ASYNC109 - as asyncpg's own; it is part of the answer
    whole: bool = False,
) -> None:
    """Return when a projection has handled the event at a position, or the events at several, as `append` returns them.

    And with each, all events before it of the same key. `whole`: all events up to there, whatever their keys, so that
    no partition of the projection is behind. What the projection's filter leaves out, or what somebody has skipped or
    discarded, counts as handled.

    `connection` is one of asyncpg's, of SQLAlchemy's on asyncpg too, in no transaction: one waits for what others
    commit, and for what has been committed. It is used as long as this waits. A worker that has read so far answers at
    once; a pooler that shares sessions among transactions lets no answer through, and then it is looked every 0.25 to
    2 s.

    Raises NotHandled after `timeout` seconds, saying how far the projection is and why; TypeError for another
    connection, or what is no position; ValueError for one that is closed or in a transaction, and for a time-out that
    is none; ConfigError for a bad name, or where there is no schema; Unavailable when the connection is lost, or the
    database does not answer for 10 s.
    """
    positions = _positions(position)
    _demand(replica_set, projection, timeout)
    own = await _own(connection)
    if positions:
        await _wait(own, Wanted(replica_set, Subscription(projection, OWN_LOG), tuple(positions), whole), timeout)


async def _wait(connection: AnyConnection, wanted: Wanted, timeout_s: float) -> None:
    # Of a connection, not of a wait: a pooler, or a cancelled LISTEN, may leave the channel behind.
    session = connection.get_server_pid() % SESSIONS
    tell_at, pause_s = time.monotonic(), LOOK_AGAIN_S
    ends = tell_at + timeout_s
    async with listening(connection, session) as answered:
        while True:
            # Only by the clock, not after each answer: a lane that has read far enough answers at once, and would again.
            if tell := (now := time.monotonic()) >= tell_at:
                tell_at, pause_s = now + pause_s, min(pause_s * 2, LOOK_AGAIN_MOST_S)
            position = await first_unhandled(connection, wanted, session if tell else None)
            if position is None:
                return
            if (now := time.monotonic()) >= ends:
                raise await _given_up(connection, wanted, position, timeout_s)
            await answered.wait(min(tell_at, ends) - now)


async def _given_up(connection: AnyConnection, wanted: Wanted, position: Position, timeout_s: float) -> NotHandled:
    why = reason(await standing(connection, wanted, position), position, whole=wanted.whole)
    projection, replica_set = wanted.subscription.projection, wanted.replica_set
    what = f"position {position} is not handled by projection {projection!r} of replica set {replica_set!r}"
    return NotHandled(f"{what} after {timeout_s:g} s", why)


async def _own(connection: AnyConnection | AsyncTransactional) -> AnyConnection:
    """Return the connection of asyncpg's. Raises TypeError and ValueError."""
    toolkit = toolkit_of(connection, "handled")
    own = None if isinstance(toolkit, SyncToolkit) else await toolkit.in_asyncpg()
    if own is None:
        msg = "handled takes a connection of asyncpg, or of SQLAlchemy on asyncpg: others do not hear while they wait"
        raise TypeError(msg)
    if own.is_in_transaction():
        msg = "handled takes a connection that is in no transaction: commit first, what is not committed nobody handles"
        raise ValueError(msg)
    return own


def _positions(position: Position | Iterable[Position]) -> list[Position]:
    found = list(position) if isinstance(position, Iterable) else [position]
    if not all(is_whole(each) and each > 0 for each in found):
        msg = f"handled takes a position of the log, or several, as append returns them, not {position!r}"
        raise TypeError(msg)
    return found


def _demand(replica_set: str, projection: str, timeout_s: float) -> None:
    check_name("replica-set", replica_set)
    check_name("projection", projection)
    if not (is_number(timeout_s) and timeout_s > 0):
        msg = f"timeout must be a number of seconds greater than 0, not {timeout_s!r}"
        raise ValueError(msg)
