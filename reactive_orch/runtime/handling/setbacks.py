"""What befalls a handler's transaction without its doing: it is done again, and is no attempt of the failing event."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING

from reactive_orch.core.keys import DEATHS_MOST
from reactive_orch.errors import HandlerFailed, KilledConnection, Superseded, TimedOut, Unavailable, described
from reactive_orch.model.reports import Struck
from reactive_orch.postgres import checkpoints
from reactive_orch.postgres.faults import SETBACKS, Kind, classify_foreign
from reactive_orch.runtime.cancellation import outlive
from reactive_orch.runtime.handling.markers import NotMarked

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from reactive_orch.model import Event, Position
    from reactive_orch.postgres.connection import AnyConnection
    from reactive_orch.runtime.handling.scope import Scope

SETBACKS_MAX = 20
"""So many setbacks in a row inside handlers count as the handler's own failure."""

ALMOST = 0.9
"""The server counts its limit for transactions from the BEGIN, before handlers are called. So handlers that have taken
this share of it are taken to have reached it."""


class Setbacks:
    """Those of one lane, in a row."""

    def __init__(self, scope: Scope) -> None:
        """Begin without any."""
        self._database = scope.database
        self._timeout_s = scope.timeout_s
        self._subject, self._emit = scope.subject, scope.watchers.emit
        self._in_a_row = 0
        self._lost_at: tuple[Position, int] = (0, 0)
        """At which event connections were lost that nothing else explains, and how often in a row."""

    def over(self) -> None:
        """Begin to count anew: a batch was committed."""
        self._in_a_row, self._lost_at = 0, (0, 0)

    @contextlib.contextmanager
    def strikes(self) -> Iterator[None]:
        """Count what cancels the batch of this block after its calls, as by a time-out that a handler has left open.

        Raises Superseded then, in the end HandlerFailed; what cancels it from outside passes through.
        """
        try:
            yield
        except asyncio.CancelledError as error:
            outlive(error)
            self._in_a_row += 1
            msg = "cancelled after the handler's calls: has it left a time-out open?"
            if self._in_a_row > SETBACKS_MAX:
                raise HandlerFailed(msg) from error
            self._emit(Struck(self._subject))
            raise Superseded(msg) from error

    async def tell(self, error: HandlerFailed, events: Sequence[Event], tx: AnyConnection, took_s: float) -> None:
        """Raise what a failed call ends its batch with if it was a setback; return if the handler is to blame.

        `took_s` is how long the handlers of these events have taken. Raises TimedOut when the server has ended the
        transaction because it lasted too long, KilledConnection when it is lost again and again at the same event.
        """
        cause = error.__cause__
        if isinstance(cause, NotMarked) and cause.__cause__ is not None:
            raise cause.__cause__
        if cause is None or self._in_a_row >= SETBACKS_MAX or took_s >= self._timeout_s:
            return
        kind = classify_foreign(cause, tx)
        if kind is Kind.LOST:
            await self._demand_time_left(error, took_s)
            self._note_loss(error, events)
        if kind in SETBACKS:
            self._in_a_row += 1
            raise SETBACKS[kind](described(cause)) from cause

    async def lost(self, error: Unavailable, events: Sequence[Event], took_s: float) -> None:
        """Count a loss that was found only when the batch was to end. Raises as `tell` does."""
        failed = HandlerFailed(described(error), 0 if len(events) == 1 else None)
        failed.__cause__ = error
        await self._demand_time_left(failed, took_s)
        self._note_loss(failed, events)

    def _note_loss(self, error: HandlerFailed, events: Sequence[Event]) -> None:
        position = events[error.index or 0].global_position
        self._lost_at = (position, self._lost_at[1] + 1 if self._lost_at[0] == position else 1)
        if self._lost_at[1] >= DEATHS_MOST:
            failed = KilledConnection(self._lost_at[1])
            failed.index = error.index
            raise failed from error.__cause__

    async def _demand_time_left(self, error: HandlerFailed, took_s: float) -> None:
        # The server says why it ends a connection, but asyncpg does not pass it on when no statement waits for it.
        asked = time.monotonic()
        async with self._database.coordination() as connection:
            limit_s, up_s = await checkpoints.transaction_limits_s(connection)
        if up_s < took_s + time.monotonic() - asked:
            msg = "the server has been started anew"
            raise Unavailable(msg) from error.__cause__
        if limit_s and took_s >= ALMOST * limit_s:
            msg = f"its batch took longer than transaction_timeout lets a transaction last, {limit_s:g} s"
            raise TimedOut(msg, error.index) from TimeoutError(msg)
