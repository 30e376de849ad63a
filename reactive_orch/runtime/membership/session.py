"""The membership connection: one per process, outside the pools, with nothing slow on it (protocol 5.1, 5.8, 6.4).

It LISTENs on the channels of all workers, holds the session advisory lock of every member of this process ("I live"),
and sends the heartbeats, which also prove that the connection is alive. When it is lost it is made again, with backoff:
LISTEN first, then the locks under the same ids, then everybody is told to look, since whatever was notified meanwhile
is gone.
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import anyio

from reactive_orch.errors import Superseded, Unavailable
from reactive_orch.model.reports import HeartbeatSent
from reactive_orch.postgres import membership
from reactive_orch.postgres.channels import AWAITED_CHANNEL, EVENTS_CHANNEL, GENERATIONS_CHANNEL
from reactive_orch.postgres.faults import is_stale, translated
from reactive_orch.postgres.pool import CLEANUP_TIMEOUT_S
from reactive_orch.runtime.membership.trust import Trust

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence

    from reactive_orch.model import MemberId, Subscription
    from reactive_orch.model.reports import Emit
    from reactive_orch.postgres.connection import BatchConnection
    from reactive_orch.postgres.database import Database

ANSWER_TIMEOUT_S = 3.0
"""A heartbeat that takes longer means that the network is gone: nothing on this connection is slow."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Listeners:
    """Whom the session tells, and asks. No call waits."""

    account: Callable[[Collection[MemberId]], Mapping[MemberId, str]]
    """Member → what it says of itself with a heartbeat."""
    events: Callable[[], None]
    """Something was appended."""
    generation: Callable[[str], None]
    """A replica set has a new generation, or a projection was rewound, says a notification."""
    attention: Callable[[str], None]
    """The same, or somebody to admit or to remove, says a heartbeat."""
    awaited: Callable[[str], None]
    """Somebody waits until positions are handled, says a notification."""
    emit: Emit
    """How each heartbeat went is told here."""
    look: Callable[[], None]
    """Anything may have happened: the connection was lost and is back, or members were removed."""


class Session:
    """The membership connection of a process and the members it stands for."""

    def __init__(self, database: Database, heartbeat_s: float, listeners: Listeners) -> None:
        """Prepare; `open` connects."""
        self._database = database
        self._heartbeat_s = heartbeat_s
        self._listeners = listeners
        self._connection: BatchConnection | None = None
        self._one_at_a_time = anyio.Lock()
        self._lost = anyio.Event()
        self.trust = Trust(heartbeat_s)
        self._states: dict[str, tuple[int, int]] = {}
        """Of each replica set, what the last heartbeat saw: generation and changes of projections."""
        self.members: set[MemberId] = set()
        self._drawn: set[MemberId] = set()
        """All ids that this process has ever had: a server that has lost the last ones would draw them again."""
        self.since: float | None = None
        """Since when notifications arrive, by the monotonic clock."""
        self.queue_usage = 0.0
        """How full the server's queue of notifications was at the last heartbeat, 0 to 1."""

    @property
    def connected(self) -> bool:
        """Whether notifications arrive."""
        return self._connection is not None

    @property
    def trusts(self) -> bool:
        """Whether a free lock or an old heartbeat of another member proves anything."""
        return self.connected and self.trust.given

    async def open(self) -> None:
        """Connect and LISTEN. Raises Unavailable or ConfigError."""
        lost = self._lost = anyio.Event()
        connection = await self._database.connect("membership", timeout_s=ANSWER_TIMEOUT_S)
        try:
            with translated():
                # This connection's event: the one before may report its end only now.
                connection.add_termination_listener(lambda _: lost.set())
                await connection.add_listener(EVENTS_CHANNEL, lambda *_: self._listeners.events())
                await connection.add_listener(GENERATIONS_CHANNEL, lambda *args: self._listeners.generation(args[3]))
                await connection.add_listener(AWAITED_CHANNEL, lambda *args: self._listeners.awaited(args[3]))
            if self.members:
                # Resuming makes a member look alive, and is a short word. Where a heartbeat, a long one, does not get
                # through, as packets of its size are lost, it would be resumed for ever, and never be replaced.
                await membership.heartbeat(connection, self._database.label, (), {})
                self.members &= await membership.resume(connection, self._database.label, self.members)
        except BaseException:
            connection.terminate()
            raise
        self._states.clear()
        self._connection, self.since = connection, time.monotonic()
        self.trust.connected()

    async def beat_until_lost(self) -> None:
        """Send heartbeats until the connection is lost; raises Unavailable then."""
        while True:
            with anyio.move_on_after(self._heartbeat_s):
                await self._lost.wait()
            if self._lost.is_set():
                msg = "the membership connection was closed"
                raise Unavailable(msg)
            await self._beat()

    async def _beat(self) -> None:
        outcome, began = "lost", time.monotonic()
        try:
            told = self._listeners.account(self.members)
            async with self._alone() as connection:
                known = frozenset(self.members)
                beats = await membership.heartbeat(connection, self._database.label, known, told)
            outcome = "late" if any(beat.late for beat in beats) else "ok"
            self.trust.answered()
            self._heed(known, beats)
        except Superseded:
            outcome = "late"  # the server has cut it short: the next one will do
        finally:
            self._listeners.emit(HeartbeatSent(time.monotonic() - began, outcome))

    def _heed(self, known: frozenset[MemberId], beats: Sequence[membership.Beat]) -> None:
        removed = known - {beat.id for beat in beats}
        if removed:
            self.members -= removed
            self._listeners.look()
        for beat in beats:
            self.queue_usage = beat.queue_usage
            state = (beat.generation, beat.changes)
            if beat.attention or self._states.get(beat.replica_set) != state:
                self._states[beat.replica_set] = state
                self._listeners.attention(beat.replica_set)

    async def reopen(self) -> None:
        """Connect again after a loss and tell everybody to look."""
        self._drop()
        await self.open()
        self.trust.reconnected()
        self._listeners.look()

    def _drop(self) -> None:
        if self._connection is not None:
            connection, self._connection, self.since = self._connection, None, None
            self._database.give_up(connection)

    async def close(self) -> None:
        """Close the connection within bounded time; the locks go with it."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with anyio.move_on_after(CLEANUP_TIMEOUT_S, shield=True):
                with contextlib.suppress(Exception):
                    await connection.close(timeout=CLEANUP_TIMEOUT_S / 2)
            connection.terminate()

    async def join(self, replica_set: str, subscriptions: Collection[Subscription], stale_after_s: float) -> MemberId:
        """Take a new member's lock and write its waiting row. Raises Unavailable while there is no connection."""
        async with self._alone() as connection:
            # Shielded: a member whose row is written and whose id nobody knows would be waited for by all.
            with anyio.CancelScope(shield=True):
                member = await membership.join(
                    connection,
                    replica_set,
                    self._database.label,
                    subscriptions,
                    stale_after_s,
                    self.members,
                    self._drawn,
                )
            self.members.add(member)
            self._drawn.add(member)
        return member

    async def unlock(self, member: MemberId) -> None:
        """Give back the lock of a member that has left or was removed."""
        self.members.discard(member)
        async with self._alone() as connection:
            await membership.unlock(connection, member)

    @contextlib.asynccontextmanager
    async def _alone(self) -> AsyncIterator[BatchConnection]:
        async with self._one_at_a_time:
            if self._connection is None:
                msg = "the membership connection is down"
                raise Unavailable(msg)
            try:
                yield self._connection
            except Superseded as error:
                if is_stale(error):
                    self._lost.set()
                raise
            except Unavailable as error:
                self._lost.set()
                if isinstance(error.__cause__, TimeoutError):
                    self._database.cut()
                raise
