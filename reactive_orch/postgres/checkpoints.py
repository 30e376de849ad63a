"""The checkpoints: load them, and the one compare-and-swap on which all safety rests (protocol 3.1 to 3.5).

    BEGIN
    swap     the rows of the partitions touched: locked in partition order, those held by others skipped; moved where
             position and epoch are the expected ones; as many as sent, or roll back
    …        whoever opened the batch runs the handlers
    …        whoever opened it may end it before its last event: then the rows are moved back to where it stops
    seal     still the same transaction? then COMMIT, in the same round trip; and BEGIN, if the next batch is ready;
             what handlers have done to the session ends with it

Between swap and COMMIT the rows are locked, so two believers cannot both work on a partition; before the swap nothing
is done. The deferred trigger on `checkpoints` refuses any COMMIT without the seal, and the seal is made of a token that
only the client knows. So no SQL of a handler commits half a batch, unless it changes the trigger or its function.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import time
from hashlib import sha256
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Self, TypeAlias, TypeVar, cast

import anyio
import asyncpg

from reactive_orch.errors import ConfigError, HandlerFailed, Refused, Superseded, described
from reactive_orch.model import Checkpoint, Filter, LogName, Partition, Position, Projection, Subscription, Swap
from reactive_orch.postgres import put_off
from reactive_orch.postgres.connection import drop, is_closed
from reactive_orch.postgres.database import STATEMENT_TIMEOUT_S
from reactive_orch.postgres.faults import (
    SETBACKS,
    Kind,
    classify_foreign,
    demanding_rights,
    is_of_code_alone,
    translated,
)
from reactive_orch.postgres.pool import CLEANUP_TIMEOUT_S
from reactive_orch.postgres.statements import load_statements

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence

    from reactive_orch.postgres.connection import AnyConnection, BatchConnection

_SQL = load_statements(Path(__file__).with_suffix(".sql"))
FAILURES_MAX = 1000
"""A connection that remembers so many failed events goes with the next one: what is remembered must not grow."""
SLICES_MAX = 3
"""Of waiting for a checkpoint that a batch holds: batches are to take a second."""
_POSITION, _EPOCH = attrgetter("position"), attrgetter("epoch")


def filter_text(wanted: Filter) -> str:
    """Return the filter as it is recorded: JSON, without escapes, which not every database's jsonb takes."""
    recorded = {"aggregate_types": wanted.aggregate_types, "bounded_contexts": wanted.bounded_contexts}
    # Named only where it filters: what was recorded before there was this one stays what it is.
    more = {} if wanted.event_types is None else {"event_types": wanted.event_types}
    return json.dumps(recorded | more, ensure_ascii=False)


def columns(subscriptions: Sequence[Subscription]) -> tuple[list[str], list[str]]:
    """Return the projections and the logs, as statements take them."""
    return [each.projection for each in subscriptions], [each.log for each in subscriptions]


class Batches:
    """Batches of one subscription, one after the other on one connection. An async context manager.

    A batch that is followed at once by another one commits and begins the next in one round trip.
    """

    swap_statement = _SQL.swap

    def __init__(self, connection: AnyConnection, replica_set: str, subscription: Subscription) -> None:
        """Begin nothing yet."""
        self._connection = connection
        self._of = _key(replica_set, subscription)
        own = cast("BatchConnection", connection)
        # Taken now: the pool's proxy cannot be asked once its connection is lost.
        self._marks, self._nest, self._unnest = own.marks, own.nest, own.unnest
        self._begun = False
        self._ends_at: Sequence[Swap] = ()
        self._last: list[Callable[[], Awaitable[object]]] = []
        self._transaction, self._token = "", ""
        self.swap_s = 0.0
        """How long the last swap took, in seconds."""
        self.failing = 0
        """How many failing keys the partitions of the batch in hand have."""

    @property
    def begun(self) -> bool:
        """Whether the transaction of the next batch has begun."""
        return self._begun

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._roll_back()

    @contextlib.asynccontextmanager
    async def batch(self, swaps: Sequence[Swap], goes_on: Callable[[], bool] = lambda: False) -> AsyncIterator[None]:
        """Open a batch: a transaction that has moved the checkpoints.

        `goes_on` is asked at the end whether another batch follows at once. The body's exceptions pass through after
        a rollback. Raises Superseded when a checkpoint is held by another transaction or stands elsewhere, or when the
        transaction met another one; HandlerFailed when the database refuses what the body did; Exhausted; Unavailable
        when the connection is lost: then the outcome is unknown.
        """
        self._ends_at, self._last = (), []
        try:
            with translated():
                await self._swap(swaps)
        except BaseException:
            await self._roll_back()
            raise
        self._marks.put_off, self._marks.changed = [], False
        try:
            yield
            await self._finish(goes_on)
        except BaseException as error:
            self._marks.put_off = None
            clean = False
            try:
                lasts = not self._marks.changed and len(self._marks.failed_at) < FAILURES_MAX
                clean = await self._roll_back(clean=lasts and is_of_code_alone(error))
            finally:
                # A rollback does not undo all that a handler did to the session. Or a stale type or plan made it fail.
                if not clean:
                    drop(self._connection)
            raise

    async def await_others(self) -> bool:
        """Wait until no other batch of the subscription is at work that has waited here too, and keep others waiting.

        Holding nothing, and no longer than a slice of 900 ms: False then. True: it is this one's turn, up to the end of
        the batch that is opened next. Raises what `batch` raises.
        """
        with translated():
            await self._begin()
            return bool(await self._connection.fetchval(_SQL.await_others, *self._of, timeout=STATEMENT_TIMEOUT_S))

    async def await_checkpoint(self, partition: Partition) -> Checkpoint | None:
        """Wait for a checkpoint that another lane may hold, and keep it up to the end of the batch that is opened next.

        No longer than a few slices of 900 ms: None then, and when it does not exist. Raises what `batch` raises.
        """
        values = (*self._of, partition)
        with translated():
            await self._begin()
            for _ in range(SLICES_MAX):
                row = await self._connection.fetchrow(_SQL.await_checkpoint, *values, timeout=STATEMENT_TIMEOUT_S)
                if row is not None:
                    return Checkpoint(*row)
        return None

    def stop_short(self, swaps: Sequence[Swap]) -> None:
        """End the batch early, at these swaps' targets: later events were not handled."""
        self._ends_at = swaps

    def write_last(self, write: Callable[[], Awaitable[object]]) -> None:
        """Write this, too, on the batch's connection when its handlers have done, as ourselves, before it is sealed."""
        self._last.append(write)

    def note_failure(self, position: Position) -> None:
        """Note that the event at a position has failed alone: its next attempt is to be on another connection."""
        self._marks.failed_at.add(position)

    async def _begin(self) -> None:
        if not self._begun:
            # Only handlers' statements get the handlers' long time-out.
            await self._begin_by(self._connection.execute(_SQL.begin, timeout=STATEMENT_TIMEOUT_S))

    async def _begin_by(self, beginning: Awaitable[_T]) -> _T:
        """Begin the transaction by what is awaited."""
        self._begun = True
        self._nest()
        try:
            return await beginning
        except asyncpg.PostgresError:
            raise  # the server has answered: asyncpg knows whether it has begun
        except BaseException:
            drop(self._connection)
            raise

    async def _finish(self, goes_on: Callable[[], bool]) -> None:
        assert self._begun, "a batch has begun"
        try:
            if self._ends_at or self._last or self._marks.put_off:
                await self._connection.execute(_SQL.own_role)
                await self._move_back()
                with demanding_rights():
                    for write in self._last:
                        await write()
                await put_off.write(self._connection)
            self._marks.put_off = None
            if goes_on() and not self._marks.changed:
                await self._connection.execute(self._sealing(_SQL.seal_and_go_on))
            else:
                await self._connection.execute(self._sealing(_SQL.seal))
                self._end()
                if self._marks.changed:
                    drop(self._connection)
        except (Superseded, ConfigError):
            raise  # by what we write: it says nothing of the handler
        except asyncpg.InFailedSQLTransactionError as error:
            msg = "the handler caught a database error and went on; the database has given up its transaction"
            raise HandlerFailed(msg) from error
        except Exception as error:
            # An error here is about the handler's statements: a deferred constraint, a conflict. But an OSError is a
            # lost connection: no handler runs now that could have met one elsewhere.
            kind = Kind.LOST if isinstance(error, OSError) else classify_foreign(error, self._connection)
            raise SETBACKS.get(kind, HandlerFailed)(described(error)) from error

    async def _swap(self, swaps: Sequence[Swap]) -> None:
        began = time.perf_counter()
        self._token = _new_token()
        beginning = not self._begun and cast("BatchConnection", self._connection).begin_with(self.swap_statement)
        if not beginning:
            await self._begin()
        moving = self._move(swaps, self._token)
        moved = await (self._begin_by(moving) if beginning else moving)
        self._transaction, self.failing = moved.transaction, moved.failing
        self.swap_s = time.perf_counter() - began
        _demand_all(self._of, swaps, moved.swapped)

    async def _move(self, swaps: Sequence[Swap], token: str) -> Moved:
        return await _move(self._connection, self._of, swaps, token)

    def _sealing(self, text: str) -> str:
        """Put the transaction's id and the token into the text: several statements at once take no parameters."""
        return text.replace("TRANSACTION", self._transaction).replace("TOKEN", self._token)

    async def _move_back(self) -> None:
        """Move the rows back to where the batch has stopped: they are locked, so nobody has seen or will see more."""
        if self._ends_at:
            partitions, expected, targets = zip(*self._ends_at, strict=True)
            epochs = list(map(_EPOCH, expected))
            tag = await self._connection.execute(_SQL.move_back, *self._of, partitions, targets, epochs)
            _demand_all(self._of, self._ends_at, int(tag.split()[-1]))

    def _end(self) -> None:
        self._begun = False
        self._unnest()

    async def _roll_back(self, *, clean: bool = False) -> bool:
        """Roll back; return whether the session was to be cleaned as well, and is as if no handler had used it."""
        if not self._begun:
            return False
        self._end()
        with anyio.move_on_after(CLEANUP_TIMEOUT_S, shield=True):
            try:
                if not is_closed(self._connection):
                    tag = await self._connection.execute(_SQL.roll_back_and_clean if clean else _SQL.roll_back)
                    return clean and tag.endswith(" 0")  # rows
            except Exception:  # noqa: BLE001 - the error that led here matters; this connection is done for
                drop(self._connection)
        return False


async def save(connection: AnyConnection, replica_set: str, subscription: Subscription, swaps: Sequence[Swap]) -> None:
    """Move checkpoints over stretches without events, in one statement.

    Raises Superseded when some are held by another transaction or stand elsewhere; the others have been moved.
    """
    of = _key(replica_set, subscription)
    with translated():
        moved = await _move(connection, of, swaps, _new_token(), alone=True)
    _demand_all(of, swaps, moved.swapped)


_T = TypeVar("_T")
_Key: TypeAlias = tuple[str, str, LogName]
"""Replica set, projection, log: whose checkpoints."""


def _key(replica_set: str, subscription: Subscription) -> _Key:
    return replica_set, subscription.projection, subscription.log


class Moved(NamedTuple):
    """What a swap has done."""

    swapped: int
    """Rows."""
    transaction: str
    """Its id."""
    failing: int
    """Failing keys of the partitions."""


def _new_token() -> str:
    return secrets.token_hex(16)


async def _move(
    connection: AnyConnection, of: _Key, swaps: Sequence[Swap], token: str, *, alone: bool = False
) -> Moved:
    """Run the swap; with `alone` it seals itself."""
    partitions, expected, targets = zip(*swaps, strict=True) if swaps else ((), (), ())
    positions, epochs = list(map(_POSITION, expected)), list(map(_EPOCH, expected))
    seal = sha256(token.encode()).digest()
    values = (*of, partitions, positions, epochs, targets, seal, token if alone else None)
    row = await connection.fetchrow(_SQL.swap, *values, timeout=STATEMENT_TIMEOUT_S)
    assert row is not None, "an aggregate returns one row"
    return Moved(*row[:3])


def _demand_all(of: _Key, swaps: Sequence[Swap], swapped: int) -> None:
    if swapped != len(swaps):
        msg = f"{len(swaps) - swapped} of {len(swaps)} checkpoints of {of[1]} have moved, or somebody else holds them"
        raise Superseded(msg)


async def load_free(
    connection: AnyConnection, replica_set: str, projection: Projection, partitions: Collection[Partition]
) -> dict[Partition, Checkpoint]:
    """Return the checkpoints that no transaction holds at this moment.

    Raises Refused when they are recorded with another filter than the projection's.
    """
    of = (replica_set, *projection.subscription)
    with translated():
        rows = await connection.fetch(_SQL.load_free, *of, sorted(partitions), filter_text(projection.filter))
    if not all(row["ours"] for row in rows):
        raise Refused(projection.name)
    return {row["partition"]: Checkpoint(row["position"], row["epoch"], row["handled_to"]) for row in rows}


async def accepted(
    connection: AnyConnection, replica_set: str, filters: Mapping[Subscription, Filter]
) -> frozenset[Subscription]:
    """Return which of these are recorded with these filters now."""
    texts = list(map(filter_text, filters.values()))
    with translated():
        rows = await connection.fetch(_SQL.accepted, replica_set, *columns(list(filters)), texts)
    return frozenset(Subscription(*row) for row in rows)


async def unhandled(
    connection: AnyConnection, replica_set: str, subscription: Subscription, swaps: Sequence[Swap]
) -> frozenset[Position]:
    """Return where, in the stretches that these swaps have moved over, events are that have never been handled.

    In the transaction of the swaps.
    """
    low, high = min(swap.expected.position for swap in swaps), max(swap.target for swap in swaps)
    partitions = [swap.partition for swap in swaps]
    with translated():
        rows = await connection.fetch(_SQL.unhandled, replica_set, *subscription, partitions, low, high)
    return frozenset(row[0] for row in rows)


async def await_free(
    connection: AnyConnection, rows: Sequence[tuple[int, str, Subscription, Partition]]
) -> frozenset[int]:
    """Wait until the first of these checkpoints is free, but no longer than a slice of 50 ms.

    A row is a waiter's number, a replica set, a subscription and a partition. Returns the numbers of the waiters for
    whom a row is free then, or does not exist.
    """
    numbers, replica_sets, subscriptions, partitions = zip(*rows, strict=True)
    values = (numbers, replica_sets, *columns(subscriptions), partitions)
    with translated():
        return frozenset(await connection.fetchval(_SQL.await_free, *values))


async def demand_complete(connection: AnyConnection, replica_set: str, subscriptions: Collection[Subscription]) -> None:
    """Raise ConfigError when one of these has lost checkpoints: from 0 it would handle all once more."""
    with translated():
        rows = await connection.fetch(_SQL.incomplete, replica_set, *columns(list(subscriptions)))
    if rows:
        raise ConfigError(_deleted(replica_set, rows[0]["name"], recorded=rows[0]["recorded"]))


def _deleted(replica_set: str, projection: str, *, recorded: bool) -> str:
    if not recorded:
        of = f"projection {projection} of replica set {replica_set}"
        return f"{of} has been removed; a worker that is started makes it anew"
    return (
        f"checkpoints of projection {projection} have been deleted; say from where to go on: "
        f"python -m reactive_orch rewind --replica-set {replica_set} --projection {projection} --to start|POSITION"
    )


async def transaction_limits_s(connection: AnyConnection) -> tuple[float | None, float]:
    """Return for how long the server lets a transaction last, 0 or None for ever, and how long it has been up.

    Both in seconds.
    """
    with translated():
        row = await connection.fetchrow(_SQL.transaction_limits)
    assert row is not None, "a query without a table returns one row"
    return row["limit_s"], row["up_s"]
