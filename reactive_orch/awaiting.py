"""Waiting until what was appended is handled: for whoever answers a request with what it has changed."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from reactive_orch.core.awaiters import SESSIONS, reason, takes_a_person
from reactive_orch.errors import NotHandled
from reactive_orch.model import OWN_LOG, Subscription, check_name
from reactive_orch.model.awaiter import Wanted
from reactive_orch.model.projections import is_number, is_whole
from reactive_orch.postgres.handled import first_unhandled, listening, standing
from reactive_orch.postgres.toolkits import SyncToolkit, toolkit_of

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator

    from reactive_orch.model import Position
    from reactive_orch.model.awaiter import Standing
    from reactive_orch.postgres.connection import AnyConnection
    from reactive_orch.postgres.toolkits import AsyncToolkit, AsyncTransactional

_ACCEPTED = "a connection of asyncpg, or a connection or session of SQLAlchemy on asyncpg"

LOOK_AGAIN_S, LOOK_AGAIN_MOST_S = 0.25, 2.0
"""Without an answer it looks after a while, and after twice as long each time, up to this: an answer may be lost, with
the connection of the worker that would give it, say."""


def handled(  # noqa: PLR0913 - which position of what, and for how long
    connection: AnyConnection | AsyncTransactional,
    replica_set: str,
    projection: str,
    position: Position | Iterable[Position],
    *,
    timeout: float = 10.0,
    whole: bool = False,
) -> Coroutine[Any, Any, None]:
    """Wait until a projection has handled the event at a position, or those at several, as `append` returns them.

    And with each, all events before it of the same key. `whole`: all events up to there, whatever their keys, so that
    no partition of the projection is behind. What the projection's filter leaves out, or what somebody has skipped or
    discarded, counts as handled. To be awaited: `await handled(…)`.

    `connection` is one of asyncpg's, or a connection or session of SQLAlchemy's on asyncpg, in no transaction: one
    waits for what others commit, and for what has been committed. It is used as long as this waits. A worker that has
    read so far answers at once; a pooler that shares sessions among transactions lets no answer through, and then it is
    looked every 0.25 to 2 s.

    Raises NotHandled after `timeout` seconds, saying how far the projection is and why; sooner where it takes a person:
    the event's key is parked, the projection is paused or halted. Raises TypeError for another connection, or what is
    no position; ValueError for one that is closed or in a transaction, and for a time-out that is none; ConfigError for
    a bad name, or where there is no schema; Unavailable when the connection is lost, or the database does not answer
    for 10 s.
    """
    positions = _positions(position)
    _demand(replica_set, projection, timeout)
    toolkit = toolkit_of(connection, "handled", _ACCEPTED)
    if isinstance(toolkit, SyncToolkit):
        raise _no_listener()
    return _handled(toolkit, Wanted(replica_set, Subscription(projection, OWN_LOG), tuple(positions), whole), timeout)


async def _handled(toolkit: AsyncToolkit, wanted: Wanted, timeout_s: float) -> None:
    connection = await toolkit.in_asyncpg()
    if connection is None:
        raise _no_listener()
    if connection.is_in_transaction():
        msg = "handled takes a connection that is in no transaction: commit first, what is not committed nobody handles"
        raise ValueError(msg)
    if wanted.positions:
        await _wait(connection, wanted, timeout_s)


async def _wait(connection: AnyConnection, wanted: Wanted, timeout_s: float) -> None:
    began = time.monotonic()
    ends = began + timeout_s
    # Of a connection, not of a wait: a pooler, or a cancelled LISTEN, may leave the channel behind.
    session = connection.get_server_pid() % SESSIONS
    async with listening(connection, session) as answered:
        for pause_s in _pauses():
            # Workers are told by the clock: a lane that has read far enough answers at once, and would again and again.
            position = await first_unhandled(connection, wanted, session)
            look_again_at = min(time.monotonic() + pause_s, ends)
            while position is not None and await answered.before(look_again_at):
                position = await first_unhandled(connection, wanted, None)
            if position is None:
                return
            found = await standing(connection, wanted, position)
            if time.monotonic() >= ends or takes_a_person(found):
                raise _given_up(wanted, position, found, time.monotonic() - began)


def _pauses() -> Iterator[float]:
    pause_s = LOOK_AGAIN_S
    while True:
        yield pause_s
        pause_s = min(pause_s * 2, LOOK_AGAIN_MOST_S)


def _given_up(wanted: Wanted, position: Position, found: Standing, after_s: float) -> NotHandled:
    projection, replica_set = wanted.subscription.projection, wanted.replica_set
    what = f"position {position} is not handled by projection {projection!r} of replica set {replica_set!r}"
    return NotHandled(f"{what} after {after_s:.2g} s", reason(found, position, whole=wanted.whole))


def _no_listener() -> TypeError:
    return TypeError(f"handled takes {_ACCEPTED}: others do not hear while they wait")


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
