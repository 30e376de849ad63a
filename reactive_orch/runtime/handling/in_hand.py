"""The batch that a lane has in hand: swapped, handled and committed, or cut off in the middle."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Self

from reactive_orch.core.keys import KEYS_MAX, KnownKeys, split
from reactive_orch.core.replays import marked
from reactive_orch.errors import HandlerFailed
from reactive_orch.model.events import written_at
from reactive_orch.model.keys import key_of
from reactive_orch.model.middleware import subject
from reactive_orch.model.reports import BatchEnded
from reactive_orch.postgres import checkpoints
from reactive_orch.postgres.connection import drop
from reactive_orch.postgres.dead_letters import FailingKeys
from reactive_orch.runtime.handling.calls import Calls
from reactive_orch.runtime.handling.markers import Markers
from reactive_orch.runtime.stopwatch import Stopwatch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from types import TracebackType

    from reactive_orch.core.progress import Batch
    from reactive_orch.model import Event, Partition, Position, Swap
    from reactive_orch.model.keys import DueKey, Key, Waiting
    from reactive_orch.model.reports import Subject, Watchers
    from reactive_orch.postgres.checkpoints import Batches
    from reactive_orch.postgres.connection import AnyConnection
    from reactive_orch.runtime.handling.scope import Scope


class Watched:
    """A batch, told of when it has ended; handlers run in the context that traces give it."""

    __slots__ = ("_began", "_context", "_emit", "_subject", "_traceparent", "events", "replays")

    def __init__(self, watchers: Watchers, subject: Subject, generation: int, events: Sequence[Event]) -> None:
        """`events` are to be handled."""
        self.events = events
        """Those that are committed, if it is."""
        self.replays = False
        """Whether some of them may be replayed ones."""
        self._subject, self._emit = subject, watchers.emit
        self._context = watchers.tracing.batch(subject, generation, events)

    def __enter__(self) -> Self:
        self._began = time.perf_counter()
        self._traceparent = self._context.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, failure: BaseException | None, trace: TracebackType | None
    ) -> None:
        duration_s = time.perf_counter() - self._began
        if self.events:  # else all of them wait
            replayed = sum(event.replayed for event in self.events) if self.replays else 0
            self._emit(BatchEnded(self._subject, self.events, duration_s, failure, self._traceparent, replayed))
        self._context.__exit__(kind, failure, trace)


class InHand:
    """What one lane is doing to checkpoints now."""

    def __init__(self, scope: Scope) -> None:
        """Start with nothing."""
        self.partitions: frozenset[Partition] = frozenset()
        """Those whose checkpoints are being moved."""
        self._scope, self._subject = scope, scope.subject
        self._keys = FailingKeys(scope.replica_set, scope.subscription)
        self._known = KnownKeys()
        self.markers = Markers(scope)
        self._calls = Calls(scope, self.markers)
        self.events_handled = 0
        self.busy = Stopwatch()
        """For how long it has had checkpoints in hand."""
        self.oldest_at = time.time()
        """When the oldest event that is not handled yet was appended, or later if none waits; in seconds since 1970."""
        self._tx: AnyConnection | None = None
        self.waiting: Waiting | None = None
        """What waited of the projection when its last batch let an event wait; None if it did not."""

    def handler_runs(self, now: float) -> bool:
        """Tell whether handlers are running, and not for longer than they may."""
        return self._calls.run(now)

    def cut(self) -> None:
        """End the batch's transaction, whatever its handler is doing: it must not keep rows for others."""
        if self._tx is not None:
            drop(self._tx)

    @contextlib.contextmanager
    def moving(self, swaps: Sequence[Swap]) -> Iterator[None]:
        """Have these checkpoints in hand while the block moves them."""
        self.partitions = frozenset(swap.partition for swap in swaps)
        try:
            with self.busy.running():
                yield
        finally:
            self.partitions = frozenset()

    async def handle(
        self, batches: Batches, connection: AnyConnection, batch: Batch, goes_on: Callable[[], bool]
    ) -> Batch:
        """Handle a batch, or as much of it as its time allows; return what has been committed.

        `goes_on` is asked at the end of a whole batch whether the next one follows at once.
        """
        done, self._tx, self.waiting = batch, connection, None
        self.oldest_at = written_at(batch.events[0]) or self.oldest_at
        try:
            with (
                self.moving(batch.swaps),
                self._watched(batch.events) as watched,
                self._calls.setbacks.strikes(),
            ):
                async with (
                    self._calls.losses(),
                    self.markers.kept(on=self._scope.suspects.concern(batch.events)),
                    batches.batch(batch.swaps, lambda: done is batch and goes_on()),
                    self.markers.gone_with(batches, connection),
                ):
                    wanted = batch.events
                    if batch.replays:
                        watched.events = wanted = await self._marked(connection, batch)
                        watched.replays = True
                    live, queued = await self._split(batches, connection, batch, wanted)
                    handled = await self._call_live(batch.events, live, connection)
                    watched.events = live[:handled]
                    if handled < len(live):
                        done = batch.beginning(batch.events.index(live[handled - 1]) + 1)
                        batches.stop_short(done.swaps)
                    self._queue_last(batches, connection, done.events, queued)
        except BaseException as error:
            if isinstance(error, HandlerFailed) and len(batch.events) == 1:
                batches.note_failure(batch.events[0].global_position)
            self._scope.hooked.doubt({swap.partition for swap in batch.swaps})
            raise
        finally:
            self._tx = None
        if batches.failing:  # others may handle what waits of these partitions
            self._scope.hooked.doubt({swap.partition for swap in batch.swaps})
        self._known.moved(done.swaps)
        self._committed(watched.events)
        self.oldest_at = written_at(done.events[-1]) or time.time()
        return done

    async def handle_waiting(
        self, batches: Batches, connection: AnyConnection, swap: Swap, key: DueKey, limit: int
    ) -> tuple[int, bool]:
        """Handle the first events that wait of a failing key, at most `limit`, or as many as their time allows.

        `swap` locks the checkpoint and leaves it where it is. Returns how many were handled, and whether the key is no
        failing one any more.
        """
        self._tx = connection
        handled: Sequence[Event] = ()
        emptied = False
        try:
            with (
                self._scope.hooked.visiting(swap.partition),
                self.moving([swap]),
                contextlib.ExitStack() as watching,
                self._calls.setbacks.strikes(),
            ):
                async with (
                    self._calls.losses(),
                    self.markers.kept(on=limit == 1),
                    batches.batch([swap]),
                    self.markers.gone_with(batches, connection),
                ):
                    events, up_to = await self._keys.waiting(connection, key.id, limit)
                    wanted = self._wanted(events)
                    if wanted:
                        watched = watching.enter_context(self._watched(wanted))
                        watched.events = handled = wanted[: await self._calls(wanted, connection)]
                        watched.replays = True
                        if len(handled) < len(wanted):
                            up_to = handled[-1].global_position

                    async def evict() -> None:
                        nonlocal emptied
                        emptied = await self._keys.evict(connection, key, up_to)

                    batches.write_last(evict)
        except HandlerFailed:
            if limit == 1:
                batches.note_failure(key.position)
            raise
        finally:
            self._tx = None
        self._committed(handled)
        return len(handled), emptied

    @contextlib.contextmanager
    def sharing(self, batch: Batch, tx: AnyConnection) -> Iterator[None]:
        """Have a batch in hand whose transaction is that of others as well; told of when the block has committed it."""
        self._tx, self.waiting = tx, None
        self.oldest_at = written_at(batch.events[0]) or self.oldest_at
        try:
            with self.moving(batch.swaps), self._watched(batch.events) as watched:
                try:
                    yield
                except BaseException:
                    watched.events = ()  # each is handled again, alone, and told of then
                    self._scope.hooked.doubt({swap.partition for swap in batch.swaps})
                    raise
        finally:
            self._tx = None

    async def call(self, events: Sequence[Event], tx: AnyConnection) -> int:
        """Call the handler in a transaction that is shared, and return as `Calls` does."""
        token = subject.set(self._subject)
        try:
            return await self._calls(events, tx)
        finally:
            subject.reset(token)

    def shared(self, batch: Batch) -> None:
        """Note that a batch which was shared is committed."""
        self._known.moved(batch.swaps)
        self._committed(batch.events)
        self.oldest_at = written_at(batch.events[-1]) or time.time()

    def _committed(self, handled: Sequence[Event]) -> None:
        self._calls.setbacks.over()
        self.events_handled += len(handled)
        if handled:
            self._scope.outage.over()
            self._scope.fitness.succeeded()

    def _watched(self, events: Sequence[Event]) -> Watched:
        return Watched(self._scope.watchers, self._subject, self._scope.generation(), events)

    async def _marked(self, connection: AnyConnection, batch: Batch) -> Sequence[Event]:
        """Return the events that are wanted of a batch which begins before where its checkpoints have stood."""
        scope = self._scope
        unhandled = await checkpoints.unhandled(connection, scope.replica_set, scope.subscription, batch.swaps)
        return self._wanted(marked(batch.events, batch.swaps, unhandled))

    def _wanted(self, events: Sequence[Event]) -> Sequence[Event]:
        return events if self._scope.projection.replay else tuple(event for event in events if not event.replayed)

    async def _split(
        self, batches: Batches, connection: AnyConnection, batch: Batch, events: Sequence[Event]
    ) -> tuple[Sequence[Event], Mapping[Position, int]]:
        """Return the events to handle, and position → id of the failing key of those that wait."""
        if not batches.failing:
            return events, {}
        can_fail = await self._can_fail(batches.failing, connection, batch, events)
        failing = await self._keys.among(connection, can_fail) if can_fail else {}
        if not failing:
            return events, {}
        live, waiting = split(events, failing)
        return live, {event.global_position: failing[key_of(event)] for event in waiting}

    async def _can_fail(
        self, failing: int, connection: AnyConnection, batch: Batch, events: Sequence[Event]
    ) -> set[Key]:
        """Return those keys of these events that have to be asked for; so many of the partitions are failing."""
        if failing > KEYS_MAX:  # more than are worth to be known
            return set(map(key_of, events))
        self._known.begin(batch.incarnation)
        if unknown := self._known.unknown(batch.swaps):
            held = [swap for swap in batch.swaps if swap.partition in unknown]
            self._known.learn(held, await self._keys.of_partitions(connection, unknown))
        return self._known.among(events)

    async def _call_live(self, events: Sequence[Event], live: Sequence[Event], tx: AnyConnection) -> int:
        try:
            return await self._calls(live, tx) if live else 0
        except HandlerFailed as error:
            if error.index is not None:
                error.index = events.index(live[error.index])
            raise

    def _queue_last(
        self, batches: Batches, connection: AnyConnection, done: Sequence[Event], queued: Mapping[Position, int]
    ) -> None:
        letters = {position: key for position, key in queued.items() if position <= done[-1].global_position}

        async def queue() -> None:
            self.waiting = await self._keys.queue(connection, letters)

        if letters:
            batches.write_last(queue)
