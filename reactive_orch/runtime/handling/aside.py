"""The failing keys of one lane: set aside, tried again when due, parked after the last retry (protocol 7).

Whatever changes them is a batch of the lane, which holds the checkpoint of the key's partition: so no event of a key is
handled beside another one, whoever owns the partition meanwhile.
"""

from __future__ import annotations

import contextlib
import math
import random
import time
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from reactive_orch.core.keys import judge, too_many
from reactive_orch.errors import (
    Deadly,
    HandlerFailed,
    KilledProcess,
    Outage,
    ProjectionFailed,
    Superseded,
    TooMuchWaits,
    Unavailable,
    described,
    named,
    place_of,
    sqlstate_of,
    text_of,
    traceback_of,
)
from reactive_orch.model import Swap
from reactive_orch.model.keys import Asked, Attempt, DueKey, Failure
from reactive_orch.model.reports import AttemptFailed, EventFailed, KeyLive, KeyParked
from reactive_orch.postgres import checkpoints
from reactive_orch.postgres.dead_letters import FailingKeys
from reactive_orch.postgres.suspicions import Suspicions
from reactive_orch.runtime.backoff import Backoff

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from reactive_orch.core.keys import Action
    from reactive_orch.core.progress import Progress
    from reactive_orch.model import Position
    from reactive_orch.model.keys import Waiting
    from reactive_orch.postgres.connection import AnyConnection
    from reactive_orch.runtime.handling.failures import Failed, Failures
    from reactive_orch.runtime.handling.in_hand import InHand
    from reactive_orch.runtime.handling.scope import Scope

MESSAGE_MOST = 8_000
"""Characters that are kept of what an error says."""

LOOK_EVERY_S = 5.0
"""As long as keys are failing: somebody may have asked for something, and the notification was lost."""

LAST_POSITION = (1 << 63) - 1

_Written = TypeVar("_Written")


class Aside:
    """The failing keys of one lane."""

    def __init__(self, scope: Scope, progress: Progress, in_hand: InHand, failures: Failures) -> None:
        """Know of none yet; `failures` tells which event is to be set aside."""
        self._scope, self._progress, self._in_hand, self.failures = scope, progress, in_hand, failures
        self._keys = FailingKeys(scope.replica_set, scope.subscription)
        self._failing = 0
        self._look_at = 0.0
        """When to look for what is due, by the monotonic clock."""
        self._expects = True
        """Whether a key is to be tried again, or it is not known that none is."""
        self._said = 0
        self._not_before = 0.0
        """After a setback, the next attempt: others are handled first."""
        self._after_setback = Backoff(0.1, LOOK_EVERY_S)
        self._limits: dict[int, int] = {}
        """Key → how many of its events its next batch may have; 1 if it is not there."""

    @property
    def failing(self) -> int:
        """How many keys are failing of the lane's partitions, as last seen."""
        return self._failing if self._progress.partitions else 0

    @property
    def retrying(self) -> bool:
        """Whether a failing key is to be tried again, as far as is known; not when all of them wait for somebody."""
        return self.failures.alone is not None or (self._expects and bool(self._progress.partitions))

    @property
    def due_in_s(self) -> float | None:
        """In how many seconds something is to be done, 0 or less at once; None: nothing that is known of."""
        if self.failures.alone is not None:
            return 0.0
        known = self._look_at < math.inf and self._progress.partitions
        return max(self._look_at, self._not_before) - time.monotonic() if known else None

    @property
    def due(self) -> bool:
        """Whether something is to be done now."""
        return (due_in_s := self.due_in_s) is not None and due_in_s <= 0

    def look(self) -> None:
        """Look into the database at the next step: partitions came, or something has changed."""
        self._look_at, self._expects = 0.0, True
        self._said += 1

    def glance(self) -> None:
        """Look as well, but only if a key is known to be failing: only then can anybody have asked for something."""
        if self.failing:
            self.look()

    async def step(self) -> None:
        """Do what is due first, if anything is. Raises ProjectionFailed for an event that is given up, not parked."""
        if self.failures.alone is not None:
            await self._set_aside(self.failures.alone)
            return
        said = self._said
        async with self._scope.database.coordination(self._progress.incarnation) as connection:
            self._failing, key = await self._keys.next_due(connection, self._progress.partitions)
        if said == self._said:
            self._expects = key is not None
            due_in_s = math.inf if key is None else key.due_in_s
            self._look_at = time.monotonic() + (min(due_in_s, LOOK_EVERY_S) if self._failing else math.inf)
        if key is not None and (key.due_in_s <= 0 or _nobody_answers(self._scope, key)):
            await self._act_on(key)

    async def _act_on(self, key: DueKey) -> None:
        if key.request == "skip" and key.request_position not in {None, key.position}:
            await self._write(key, partial(self._keys.outdated, key=key))
        elif key.request not in {None, "retry"}:
            await self._leave_out(key)
        elif (marker := self._scope.suspects.killed(key.partition, key.position)) is not None:
            await self._failed_again(key, KilledProcess(marker.worker, marker.lane))
        else:
            async with self._scope.node.alone if key.deaths else contextlib.nullcontext():
                await self.try_key(key)

    async def _set_aside(self, failed: Failed) -> None:
        """Let a failed event wait, and with it its key, if it is still this lane's; its batch passes it."""
        self.failures.alone = None
        if not failed.stands(self._progress):
            return
        attempt, action = self._judged(0, 0, failed.error)
        waiting = None
        if failed.batch.swaps:
            waiting, key = await self._written(failed, attempt)
            if action == "ask":
                epoch = failed.batch.swaps[0].expected.epoch
                self._scope.fitness.asked[key] = Asked(failed.position, epoch, failed.window.incarnation)
            self._scope.suspects.resolved(failed.position)
            self.look()
        if failed.window.incarnation == self._progress.incarnation:  # else all was forgotten just after it was written
            self._progress.passed(failed.window, failed.position, failed.batch)
            self.failures.committed()
            self.failures.passed()
        if waiting is not None:
            _tell(self._scope, failed.position, failed.error, (attempt, action), first=failed.first)
            self._note(failed.position, failed.error)
            demand_room(self._scope, waiting)

    async def _written(self, failed: Failed, attempt: Attempt) -> tuple[Waiting, int]:
        """Write that an event waits; return what waits then, and the id of its key.

        Raises ProjectionFailed when that cannot be written, and the event has failed as often as it may.
        """
        try:
            write = partial(self._keys.set_aside, position=failed.position, attempt=attempt)
            return await self._write(failed, write, failed.error)
        except HandlerFailed as unwritten:
            if self.failures.attempts.count <= self._scope.policy.retries:
                raise
            msg = (
                f"projection {self._scope.projection.name!r} failed at event position {failed.position}, and the event "
                f"cannot be set aside: {failed.error}; {unwritten}"
            )
            raise ProjectionFailed(msg) from unwritten.__cause__

    async def try_key(self, key: DueKey) -> bool:
        """Handle what waits of a key; return False if it was not tried: its turn has not come, or its projection rests.

        Raises Superseded if its partition is not to be had, Unavailable, and ProjectionFailed if that ends the worker.
        """
        limit = 1 if key.partition in self._scope.suspects.found else self._limits.pop(key.id, 1)
        try:
            async with self._scope.serial.lane(), self._batches(key.position) as (connection, batches):
                if not await self._scope.serial.turn(batches) or self._scope.resting() is not None:
                    return False
                swap = await self._locking(batches, key)
                handled, live = await self._in_hand.handle_waiting(batches, connection, swap, key, limit)
        except HandlerFailed as error:
            if limit == 1:
                await self._failed_again(key, error)
            else:
                self._limits[key.id] = max(error.index or 0, 1)
            return True
        except (Superseded, Unavailable):
            self._not_before = time.monotonic() + self._after_setback.next_s()
            raise
        self._after_setback.reset()
        if live:
            self._scope.watchers.emit(KeyLive(self._scope.subject, key.partition))
        elif not key.elsewhere:
            self._limits[key.id] = min(max(limit, handled) * 2, self._scope.config.batch_events)
        return True

    async def _failed_again(self, key: DueKey, error: HandlerFailed) -> None:
        attempt, action = self._judged(key.attempts, key.deaths, error, asked=key.asked_by is not None)
        incarnation, stands = self._progress.incarnation, self._progress.saved.get(key.partition)
        await self._write(key, partial(self._keys.failed_again, key=key, attempt=attempt), error)
        if action == "ask" and stands is not None:
            self._scope.fitness.asked[key.id] = Asked(key.position, stands.epoch, incarnation)
        self._scope.suspects.resolved(key.position)
        _tell(self._scope, key.position, error, (attempt, action), first=attempt.number == 1)

    def _note(self, position: Position, error: HandlerFailed) -> None:
        """Raise Outage when too many keys have begun to fail like this one, and nothing has succeeded between them.

        That one fails again says nothing: where all is quiet, only what fails is tried.
        """
        outage, now = self._scope.outage, time.monotonic()
        if (place := place_of(error)) and outage.failed(position, f"{named(error)} at {place}", now):
            raise Outage(self._scope.projection.name, outage.reason, now - outage.since)

    async def try_out(self, key: DueKey) -> bool:
        """Try a failing key of a suspended projection; return whether it succeeds. That it fails is not counted."""
        if (marker := self._scope.suspects.killed(key.partition, key.position)) is not None:
            await self._failed_again(key, KilledProcess(marker.worker, marker.lane))
            return False
        try:
            async with (
                self._scope.node.alone if key.deaths else contextlib.nullcontext(),
                self._batches(key.position) as (connection, batches),
            ):
                swap = await self._locking(batches, key)
                _, live = await self._in_hand.handle_waiting(batches, connection, swap, key, 1)
        except HandlerFailed as error:
            await self._scope.database.renew()
            await self._write(key, partial(self._keys.tried_in_vain, key=key))
            failed = AttemptFailed(
                self._scope.subject, key.position, error, alone=True, first=False, attempts=key.attempts
            )
            self._scope.watchers.emit(failed)
            return False
        if live:
            self._scope.watchers.emit(KeyLive(self._scope.subject, key.partition))
        return True

    async def _leave_out(self, key: DueKey) -> None:
        up_to = key.position if key.request == "skip" else LAST_POSITION
        await self._write(key, partial(self._keys.evict, key=key, up_to=up_to, left_out=True))

    async def _write(
        self,
        of: Failed | DueKey,
        write: Callable[[AnyConnection], Awaitable[_Written]],
        error: HandlerFailed | None = None,
    ) -> _Written:
        """Write this in a batch without a handler, that of a failed event or of a key; return what that returns.

        With an error of a lost worker goes what it has said about the event.
        """
        written: list[_Written] = []
        scope = self._scope
        async with self._batches() as (connection, batches):

            async def last() -> None:
                written.append(await write(connection))

            swaps = [await self._locking(batches, of)] if isinstance(of, DueKey) else of.standing(self._progress)
            with self._in_hand.moving(swaps):
                async with batches.batch(swaps):
                    batches.write_last(last)
                    if isinstance(error, KilledProcess):
                        suspicions = Suspicions(scope.replica_set, scope.subscription)
                        batches.write_last(partial(suspicions.erase, connection, error.worker, error.lane))
        scope.hooked.doubt({swap.partition for swap in swaps})  # others may handle what waits, from now on
        return written[0]

    @contextlib.asynccontextmanager
    async def _batches(
        self, position: Position | None = None
    ) -> AsyncIterator[tuple[AnyConnection, checkpoints.Batches]]:
        """Borrow a connection; one on which the event at this position has not failed, if it is to be tried again."""
        scope = self._scope
        async with (
            scope.database.processing(self._progress.incarnation, position) as connection,
            checkpoints.Batches(connection, scope.replica_set, scope.subscription) as batches,
        ):
            yield connection, batches

    async def _locking(self, batches: checkpoints.Batches, key: DueKey) -> Swap:
        """Return the swap that locks a key's checkpoint and leaves it where it is.

        Raises Superseded if it is another lane's by now; or, of one that another worker owns, if it is held for long.
        """
        if key.elsewhere:
            checkpoint = await batches.await_checkpoint(key.partition)
        else:
            checkpoint = self._progress.saved.get(key.partition)
        if checkpoint is None:
            msg = "the partition of a failing key is another lane's, or held by one"
            raise Superseded(msg)
        return Swap(key.partition, checkpoint, checkpoint.position)

    def _judged(
        self, attempts: int, deaths: int, error: HandlerFailed, *, asked: bool = False
    ) -> tuple[Attempt, Action]:
        """Return what is to be written about an event that has failed once more, and what becomes of it.

        `asked`: others were asked to try it.
        """
        deadly = isinstance(error, Deadly)
        deaths += error.deaths if isinstance(error, Deadly) else 0
        others = not asked and not deaths and self._scope.others()
        action, pause_s = judge(attempts + 1, self._scope.policy, deaths if deadly else 0, others=others)
        jittered_s = None if pause_s is None else pause_s * random.uniform(0.5, 1.0)
        worker = error.worker if isinstance(error, KilledProcess) else self._scope.node.label
        asks = self._scope.node.label if action == "ask" else None
        return Attempt(attempts + 1, _failure(error, deaths), jittered_s, worker, deaths, asks), action


def _nobody_answers(scope: Scope, key: DueKey) -> bool:
    """Tell whether others were asked to try a key, and have left since."""
    return key.asked_by is not None and not scope.others()


def _tell(
    scope: Scope, position: Position, error: HandlerFailed, judged: tuple[Attempt, Action], *, first: bool
) -> None:
    """Tell what has been written about an event. Raises ProjectionFailed where it is to halt its projection."""
    attempt, action = judged
    number = attempt.number
    if action in {"retry", "ask"}:
        scope.watchers.emit(AttemptFailed(scope.subject, position, error, alone=True, first=first, attempts=number))
    elif action == "park":
        scope.watchers.emit(KeyParked(scope.subject, position, number, error, first))
        scope.hooked.parked(position, error)
    else:
        scope.watchers.emit(EventFailed(scope.subject, position, number, error, first))
        msg = (
            f"projection {scope.projection.name!r} failed at event position {position} "
            f"in {number} attempts: {error}{f' at {place}' if (place := place_of(error)) else ''}"
        )
        raise ProjectionFailed(msg) from error.__cause__


def demand_room(scope: Scope, waiting: Waiting) -> None:
    """Raise TooMuchWaits when more waits of a projection than should."""
    if (reason := too_many(waiting)) is not None:
        msg = f"projection {scope.projection.name!r}: {reason}; dead-letters list shows why"
        raise TooMuchWaits(msg)


def _failure(error: HandlerFailed, deaths: int) -> Failure:
    cause = error.__cause__ or error
    told = error if isinstance(error, Deadly) else cause
    text = text_of(cause) if str(error) == described(cause) else str(error)
    return Failure(
        type(told).__name__,
        sqlstate_of(cause),
        (f"{text} ({deaths} times by now)" if told is error and deaths > 1 else text)[:MESSAGE_MOST],
        traceback_of(cause),
    )
