"""What befalls a handler's transaction without its doing: it is done again, and is no attempt of the failing event."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from reactive_orch.errors import HandlerFailed, Superseded, TimedOut, described
from reactive_orch.model.reports import Struck
from reactive_orch.postgres import checkpoints
from reactive_orch.postgres.faults import SETBACKS, Kind, classify_foreign
from reactive_orch.runtime.cancellation import outlive

if TYPE_CHECKING:
    from collections.abc import Iterator

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

    def over(self) -> None:
        """Begin to count anew: a batch was committed."""
        self._in_a_row = 0

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

    async def tell(self, error: HandlerFailed, tx: AnyConnection, took_s: float) -> None:
        """Raise what a failed call ends its batch with if it was a setback; return if the handler is to blame.

        `took_s` is how long the batch's handlers have taken. Raises TimedOut when the server has ended the transaction
        because it lasted too long.
        """
        cause = error.__cause__
        if cause is None or self._in_a_row >= SETBACKS_MAX or took_s >= self._timeout_s:
            return
        kind = classify_foreign(cause, tx)
        if kind is Kind.LOST:
            await self._demand_time_left(error, took_s)
        if kind in SETBACKS:
            self._in_a_row += 1
            raise SETBACKS[kind](described(cause)) from cause

    async def _demand_time_left(self, error: HandlerFailed, took_s: float) -> None:
        # The server says why it ends a connection, but asyncpg does not pass it on when no statement waits for it.
        async with self._database.coordination() as connection:
            limit_s = await checkpoints.transaction_limit_s(connection)
        if limit_s and took_s >= ALMOST * limit_s:
            msg = f"its batch took longer than transaction_timeout lets a transaction last, {limit_s:g} s"
            raise TimedOut(msg, error.index) from TimeoutError(msg)
