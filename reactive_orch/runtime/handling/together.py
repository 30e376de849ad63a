"""Projections that are declared to belong together handle fresh events in one transaction (protocol 3.10).

    a look brings events -> each resting lane that has some is taken -> one swap for all, the handlers, one COMMIT
    whatever goes wrong  -> everything is rolled back, and each lane handles its events alone

There is one for all lanes of one number, one lane of each projection. A lane that is taken sleeps, and whatever wakes
it gets it back first. So a lane has its events either here or for itself, never both.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import anyio

from reactive_orch.errors import ReactiveOrchError, Superseded
from reactive_orch.postgres.shared_batches import SharedBatches
from reactive_orch.runtime.backoff import Backoff
from reactive_orch.runtime.cancellation import outlive
from reactive_orch.runtime.handling.calling import BATCH_S
from reactive_orch.runtime.reading.window_cache import Fetch
from reactive_orch.runtime.wakeup import Wakeup

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from reactive_orch.core.progress import Batch
    from reactive_orch.model import Projection, Subscription
    from reactive_orch.postgres.connection import AnyConnection
    from reactive_orch.runtime.handling.lane import Lane
    from reactive_orch.runtime.handling.scope import Scope
    from reactive_orch.runtime.reading.window_cache import Fetched

APART_S, APART_MOST_S = 1.0, 60.0
"""After a batch that had to be rolled back each handles its events alone for so long, and longer each time in a row:
what has failed may fail again, and then all have worked in vain."""


class _Apart(ReactiveOrchError):
    """What cannot be done together: each does it alone."""


@dataclass(slots=True, eq=False)
class Member:
    """A lane, as one of those that are handled together."""

    lane: Lane
    scope: Scope
    together: Together
    alone: bool = False
    """Its next window it handles by itself, as that could not be done together."""

    @property
    def has_it(self) -> bool:
        """Whether the lane is taken."""
        return self.together.has(self)

    def takes(self, fetched: Fetched) -> bool:
        """Take the lane, which is to handle this, if that may be: not what is only a part of what there is."""
        alone, self.alone = self.alone, False
        all_there_is = fetched.end == self.scope.follower.settled
        return not alone and all_there_is and self.may and self.together.take(self, fetched)

    async def leave(self) -> None:
        """Give the lane back, when the batch in hand is over."""
        await self.together.leave(self)

    @property
    def may(self) -> bool:
        """Whether nothing about the lane or its projection is to be seen to first."""
        lane, scope = self.lane, self.scope
        return not (
            scope.resting() is not None
            or not lane.remembers
            or lane.aside.due
            or lane.aside.retrying
            or lane.aside.failing
            or lane.failing_since is not None
            or lane.windows.pace.linger_s
            or scope.serial.on
            or scope.suspects.found
        )

    async def read(self) -> Fetched | None:
        """Read on; None at the end of the log, and where the lane is to see to it."""
        window = self.lane.windows.window()
        return None if window is None else await self.lane.windows.read(window)

    def part(self, fetched: Fetched | None) -> _Part | None:
        """Return what the lane handles of a window, if it still wants to read that next, or more."""
        mine = self.lane.windows.window()
        if fetched is None or mine is None or not self.may or not Fetch(mine).begins(fetched.window):
            return None
        return _Part(self, fetched, self.lane.plan(fetched)) if mine.high >= fetched.window.high else None


class _Part(NamedTuple):
    """What one lane has of a batch."""

    member: Member
    fetched: Fetched
    batch: Batch


class Together:
    """The lanes of one number of the projections of one group, on one worker."""

    def __init__(self) -> None:
        """Begin without any."""
        self._taken: dict[Member, Fetched | None] = {}
        """The lanes that are taken, and the window that each has brought."""
        self._wakeup = Wakeup()
        self._over = anyio.Event()
        """The batch in hand is over."""
        self._over.set()
        self._pauses = Backoff(APART_S, APART_MOST_S)
        self._apart_until = 0.0

    def has(self, member: Member) -> bool:
        """Whether this lane is taken."""
        return member in self._taken

    def take(self, member: Member, fetched: Fetched) -> bool:
        """Take a lane that rests and has events, unless they are to stay apart for now."""
        if time.monotonic() < self._apart_until:
            return False
        self._taken[member] = fetched
        self._wakeup.set()
        return True

    async def leave(self, member: Member) -> None:
        """Give a lane back, when the batch in hand is over."""
        while member in self._taken and not self._over.is_set():
            await self._over.wait()
        self._taken.pop(member, None)

    async def run(self) -> None:
        """Handle the events of those that are taken, for ever."""
        while True:
            await self._wakeup.wait()
            while self._taken:
                self._over = anyio.Event()
                try:
                    await self._round()
                except asyncio.CancelledError as error:
                    outlive(error)
                    self._give_up(doubt=True)
                except ReactiveOrchError as error:
                    self._give_up(doubt=isinstance(error, Superseded))
                finally:
                    self._over.set()

    async def _round(self) -> None:
        """Handle the next window of each; whoever has read all there is rests on."""
        brought = {each: fetched or await each.read() for each, fetched in tuple(self._taken.items())}
        self._let_rest([each for each, fetched in brought.items() if fetched is None])
        going = [each for each, fetched in brought.items() if fetched is not None]
        if not going:
            return
        database = going[0].scope.database
        async with database.processing(database.incarnation) as connection:
            # Only now: partitions may have gone meanwhile.
            parts = [part for each in going if (part := each.part(brought[each])) is not None]
            self._part(set(going) - {each.member for each in parts})
            self._taken.update((each.member, None) for each in parts)
            await self._handle([each for each in parts if each.batch.events], connection)
            for each in parts:
                each.member.lane.passed(each.fetched, each.batch)

    def _let_rest(self, members: Sequence[Member]) -> None:
        """Give back those that have read all there is: they sleep on, and hear of the next events as others do."""
        resting = [each for each in members if each.lane.windows.window() is None]
        for each in resting:
            del self._taken[each]
            each.scope.idle()
        self._part(set(members) - set(resting))

    async def _handle(self, parts: Sequence[_Part], connection: AnyConnection) -> None:
        if not parts:
            return
        if any(each.batch.replays for each in parts):
            raise _Apart
        of = [(each.member.scope.subscription, len(each.batch.swaps)) for each in parts]
        async with SharedBatches(connection, parts[0].member.scope.replica_set, of) as batches:
            with contextlib.ExitStack() as in_hand:
                for each in parts:
                    in_hand.enter_context(each.member.lane.in_hand.sharing(each.batch, connection))
                async with batches.batch([swap for each in parts for swap in each.batch.swaps]):
                    await _call(parts, connection, batches)
        self._pauses.reset()
        for each in parts:
            each.member.lane.in_hand.shared(each.batch)
            each.member.lane.aside.failures.committed()

    def _give_up(self, *, doubt: bool) -> None:
        """Let each handle its events alone, for a while. In doubt each forgets what it knows (protocol 3.8)."""
        self._apart_until = time.monotonic() + self._pauses.next_s()
        for each in self._taken:
            each.alone = True
            if doubt:
                each.lane.invalidate()
        self._part(self._taken)

    def _part(self, members: Iterable[Member]) -> None:
        for each in tuple(members):
            self._taken.pop(each, None)
            each.lane.land()
            each.lane.wakeup.set()


async def _call(parts: Sequence[_Part], connection: AnyConnection, batches: SharedBatches) -> None:
    """Call the handlers one after the other.

    Raises _Apart when one has to let events wait, and when they take longer than a batch may: rows are locked for all.
    """
    if batches.failing:
        raise _Apart
    ends = time.monotonic() + BATCH_S
    for each in parts:
        if time.monotonic() > ends:
            raise _Apart
        handled = await each.member.lane.in_hand.call(each.batch.events, connection)
        if handled < len(each.batch.events):
            raise _Apart


def groups_of(projections: Iterable[Projection]) -> Mapping[Subscription, Sequence[Together]]:
    """Return for each projection of a group what handles its lanes together with those of the others.

    Of those that read the same log with as many lanes. One that runs in threads, or on one worker alone, has none.
    """
    grouped = [each for each in projections if each.group is not None and not each.blocking and not each.exclusive]
    kinds = {each.subscription: (each.group, each.log, each.concurrency) for each in grouped}
    made = {kind: [Together() for _ in range(kind[-1])] for kind in set(kinds.values())}
    return {subscription: made[kind] for subscription, kind in kinds.items()}
