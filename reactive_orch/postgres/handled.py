"""Whether positions are handled, for whoever waits for it; and the answers of workers.

Guarantees: what is called handled was committed by the projection, as the tables say; notifications only tell when to
look.
"""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import asyncpg

from reactive_orch.model.awaiter import Standing
from reactive_orch.postgres.channels import HANDLED_CHANNELS
from reactive_orch.postgres.faults import translated
from reactive_orch.postgres.pool import CLEANUP_TIMEOUT_S
from reactive_orch.postgres.statements import load_statements

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection

    from reactive_orch.model import Position
    from reactive_orch.model.awaiter import Awaiter, Wanted
    from reactive_orch.postgres.connection import AnyConnection

_SQL = load_statements(Path(__file__).with_suffix(".sql"))


_LOST = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)
"""Who has lost the connection listens no more."""

ANSWER_TIMEOUT_S = 10.0
"""A look that takes longer means that the database is out of reach."""


class Answered:
    """Whether a worker has answered since this was last waited for."""

    def __init__(self) -> None:
        """Not yet."""
        self._event = anyio.Event()

    def __call__(self, *_: object) -> None:
        """Hear an answer."""
        self._event.set()

    async def before(self, ends: float) -> bool:
        """Tell, when it is answered or at a time of the monotonic clock, whether it has been."""
        with anyio.move_on_after(ends - time.monotonic()):
            await self._event.wait()
        answered = self._event.is_set()
        self._event = anyio.Event()
        return answered


@contextlib.asynccontextmanager
async def listening(connection: AnyConnection, session: int) -> AsyncIterator[Answered]:
    """Hear what workers answer to this number, while the block runs."""
    channel, answered = f"{HANDLED_CHANNELS}{session}", Answered()
    with translated(), anyio.fail_after(ANSWER_TIMEOUT_S):
        await connection.add_listener(channel, answered)
    try:
        yield answered
    finally:
        with anyio.move_on_after(CLEANUP_TIMEOUT_S, shield=True), contextlib.suppress(*_LOST):
            await connection.remove_listener(channel, answered)


async def first_unhandled(connection: AnyConnection, wanted: Wanted, session: int | None) -> Position | None:
    """Return the first of the positions that is not handled; None if all are. `session`: workers hear that it waits."""
    arguments = wanted.replica_set, *wanted.subscription, list(wanted.positions), wanted.whole, session
    with translated():
        found: Position | None = await connection.fetchval(_SQL.await_handled, *arguments, timeout=ANSWER_TIMEOUT_S)
    return found


async def standing(connection: AnyConnection, wanted: Wanted, position: Position) -> Standing:
    """Return what keeps a position from being handled."""
    arguments = wanted.replica_set, *wanted.subscription, position, wanted.whole
    with translated():
        row = await connection.fetchrow(_SQL.why_unhandled, *arguments, timeout=ANSWER_TIMEOUT_S)
    assert row is not None, "why_unhandled returns one row"
    return Standing(*row)


async def answer(connection: AnyConnection, awaiters: Collection[Awaiter]) -> None:
    """Tell them to look."""
    with translated():
        await connection.execute(_SQL.answer, [each.session for each in awaiters])
