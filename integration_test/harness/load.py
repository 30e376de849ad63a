"""What is appended while workers run: at once, by a steady load, or by writers who hold back, roll back and prepare."""

from __future__ import annotations

import asyncio
import contextlib
import random
import sys
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self, TypeAlias
from uuid import UUID, uuid4

import asyncpg

from integration_test.harness import projections as test_projections
from integration_test.harness.connections import LOST, connected
from integration_test.harness.waiting import TIMEOUT_S, wait_until
from reactive_orch import NewEvent, append
from reactive_orch.errors import Conflict

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
    from datetime import datetime

    from integration_test.harness.connections import Connection

    AtGate: TypeAlias = Callable[[], Awaitable[int]]

AGGREGATE_TYPE = "Key"
"""Of all events but those of `Writers`: what was handled is told apart by the aggregate's id and version only."""


async def append_events(connection: Connection, count: int, *, keys: int = 50, event_type: str = "Appended") -> None:
    """Append this many events, dealt to the keys in turn, in one transaction."""
    events = [_event(AGGREGATE_TYPE, f"key-{n % keys}", event_type) for n in range(count)]
    async with connection.transaction():
        await append(connection, events)


async def append_until_deadlock(connection: Connection) -> None:
    """Let handlers of `sharing` on several workers write shared rows in any order, until they meet; they may have."""

    async def have_deadlocked() -> bool:
        await append_events(connection, 100, keys=100)
        return bool(await connection.fetchval(_DEADLOCKED))

    await wait_until(have_deadlocked, timeout_s=120, what="handlers have deadlocked")


_DEADLOCKED = "SELECT bool_or(p.serial_until > '-infinity') FROM reactive_orch.projections p"


def _event(aggregate_type: str, key: str, event_type: str, event_id: UUID | None = None, tag: str = "") -> NewEvent:
    return NewEvent(
        aggregate_type=aggregate_type,
        aggregate_id=key,
        event_type=event_type,
        event_id=event_id,
        correlation_id=tag or None,
    )


async def stand(
    connection: Connection, projection: str, *, partitions: Collection[int], position: int, replica_set: str = "test"
) -> None:
    """Let some partitions of a new projection stand at a position, as if all before it had been handled."""
    await connection.execute(_REGISTER, replica_set, [projection])
    async with connection.transaction():
        await connection.execute("SELECT set_config('reactive_orch.sealed', 'by hand', true)")
        moved = await connection.execute(_MOVE, replica_set, projection, list(partitions), position)
    assert moved == f"UPDATE {len(partitions)}"


_REGISTER = """
SELECT reactive_orch.register_projections(
    $1, $2::text[], '{events}', ARRAY['{"aggregate_types": null, "bounded_contexts": null}'])
"""
_MOVE = """
UPDATE reactive_orch.checkpoints SET position = $4, seal = sha256('by hand')
WHERE replica_set = $1 AND projection = $2 AND partition = ANY ($3::integer[])
"""


@contextlib.asynccontextmanager
async def gate_closed(url: str) -> AsyncIterator[AtGate]:
    """Keep every `handled_at_gate` waiting in its batch; yields how many wait there now."""
    async with connected(url) as connection:
        await connection.execute("SELECT pg_advisory_lock($1)", test_projections.GATE)

        async def at_gate() -> int:
            return int(await connection.fetchval(_AT_GATE, test_projections.GATE))

        yield at_gate


_AT_GATE = """
SELECT count(*) FROM pg_locks l
WHERE l.locktype = 'advisory' AND l.objid = $1::integer::oid AND l.objsubid = 1 AND NOT l.granted
  AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())
"""


class _Writing:
    """Concurrent writers, each on a connection of its own, from entry to exit; one that is lost is made anew."""

    def __init__(self, url: str, writers: int) -> None:
        self._url = url
        self._count = writers
        self._stopping = False
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        self._tasks = [asyncio.create_task(self._write(n)) for n in range(self._count)]
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def stop(self) -> None:
        """Let transactions in flight end and stop. Raises what a writer failed with."""
        self._stopping = True
        await asyncio.gather(*self._tasks)

    def _goes_on(self) -> bool:
        return not self._stopping

    async def _write(self, number: int) -> None:
        while self._goes_on():
            try:
                async with connected(self._url) as connection:
                    await self._write_on(connection, number)
            except LOST:
                await asyncio.sleep(0.02)

    async def _write_on(self, connection: Connection, number: int) -> None:
        raise NotImplementedError


class Load(_Writing):
    """Writers who append small transactions to shared keys, as fast as the workers follow.

    What was being committed when a connection was lost is `unknown`.
    """

    def __init__(  # noqa: PLR0913 - dials, named where they are turned
        self,
        database_url: str,
        *,
        writers: int = 3,
        keys: int = 100,
        count: int | None = None,
        pause_s: float = 0.01,
        events_max: int = 4,
    ) -> None:
        """Prepare. `count`: events after which it stops by itself; `events_max`: per transaction."""
        super().__init__(database_url, writers)
        self.committed: set[tuple[str, int]] = set()
        """(key, version) of events whose transaction is known to be committed."""
        self.unknown: set[UUID] = set()
        """Ids of events whose COMMIT got no answer."""
        self._tag = str(uuid4())
        self._keys = [f"key-{n}" for n in range(keys)]
        self._left = sys.maxsize if count is None else count
        self._pause_s = pause_s
        self._events_max = events_max
        self._chance = random.Random(len(self._keys))

    async def finished(self) -> None:
        """Wait until the count is reached. Raises what a writer failed with."""
        await asyncio.gather(*self._tasks)

    async def more(self, events: int = 50, timeout_s: float = TIMEOUT_S) -> None:
        """Wait until that many more events are committed than now."""
        target = len(self.committed) + events

        async def reached() -> bool:
            for task in self._tasks:
                if task.done():
                    task.result()
            return len(self.committed) >= target

        await wait_until(reached, timeout_s, f"{events} more events are committed")

    def _goes_on(self) -> bool:
        return super()._goes_on() and self._left > 0

    async def _write_on(self, connection: Connection, number: int) -> None:
        del number
        while self._goes_on():
            events = [self._event() for _ in range(min(self._chance.randint(1, self._events_max), self._left))]
            self._left -= len(events)
            ids = {event.event_id for event in events if event.event_id}
            transaction = connection.transaction()
            await transaction.start()
            await append(connection, events)
            rows = await connection.fetch(_VERSIONS, list(ids))
            self.unknown |= ids
            await transaction.commit()
            self.unknown -= ids
            self.committed.update((row["aggregate_id"], row["aggregate_version"]) for row in rows)
            # Slower the further the workers are behind, or on a slow machine they would never come to the end.
            lag = float(await connection.fetchval(_LAG))
            await asyncio.sleep(self._pause_s * (1 + min(lag, _LAG_MAX) / _LAG_OF_ONE_PAUSE))

    def _event(self) -> NewEvent:
        return _event(AGGREGATE_TYPE, self._chance.choice(self._keys), "Loaded", uuid4(), self._tag)

    async def assert_in_log(self, connection: Connection) -> None:
        """Check that the log holds what this load committed, and besides of it at most what is unknown."""
        rows = await connection.fetch(_LOADED, self._tag)
        log = {(row["aggregate_id"], row["aggregate_version"]) for row in rows}
        assert self.committed <= log, f"committed, but not in the log: {sorted(self.committed - log)}"
        unknown = {(row["aggregate_id"], row["aggregate_version"]) for row in rows if row["event_id"] in self.unknown}
        assert log - self.committed <= unknown, f"never committed: {sorted(log - self.committed - unknown)}"


_LAG_OF_ONE_PAUSE, _LAG_MAX = 200, 20_000
"""How many events the slowest projection must be behind for a `Load` to pause once more, and how many count at most."""

_LAG = """
SELECT coalesce((SELECT max(e.global_position) FROM reactive_orch.events e) - min(c.reached), 0)
FROM (SELECT avg(position) AS reached FROM reactive_orch.checkpoints GROUP BY replica_set, projection) c
"""
_VERSIONS = "SELECT aggregate_id, aggregate_version FROM reactive_orch.events WHERE event_id = ANY ($1::uuid[])"
_LOADED = "SELECT aggregate_id, aggregate_version, event_id FROM reactive_orch.events WHERE correlation_id = $1"


@dataclass(slots=True)
class Fate:
    """What became of an event, as its writer knows it."""

    outcome: str
    """`committed`, `rolled back` or `unknown`: then the database decides."""
    not_before: datetime
    """By the database's clock: the transaction was still open then."""
    position: int


@dataclass(slots=True)
class Habits:
    """How writers write."""

    pause_s: float = 0.02
    hold: float = 0.3
    hold_s: float = 0.03
    long_hold: float = 0.02
    long_hold_s: float = 0.6
    roll_back: float = 0.08
    savepoint: float = 0.2
    prepare: float = 0.0


class Writers(_Writing):
    """Writers as they are in the world: on shared keys and on keys of their own, in each way there is to write."""

    def __init__(self, url: str, rng: random.Random, count: int = 5, habits: Habits | None = None) -> None:
        super().__init__(url, count)
        self.fates: dict[UUID, Fate] = {}
        self.kinds: Counter[str] = Counter()
        self._chances = [random.Random(rng.random()) for _ in range(count)]
        self._habits = habits or Habits()

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        self._tidying = asyncio.create_task(self._tidy_up())
        return self

    async def stop(self) -> None:
        """Let transactions in flight end, roll back what was left prepared. Raises what a writer failed with.

        Until they have ended what was left prepared is rolled back too: one of them may wait for a lock of it.
        """
        await super().stop()
        self._tidying.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._tidying
        if self._habits.prepare:
            await self._roll_back_prepared(0)

    async def _tidy_up(self) -> None:
        """Do what a transaction manager does: a prepared transaction whose client is gone would lock for ever."""
        while self._habits.prepare:
            await asyncio.sleep(0.5)
            with contextlib.suppress(*LOST):
                await self._roll_back_prepared(2)

    async def _roll_back_prepared(self, older_than_s: float) -> None:
        async with connected(self._url) as connection:
            for row in await connection.fetch(_PREPARED, older_than_s):
                with contextlib.suppress(asyncpg.UndefinedObjectError):  # its client has just ended it
                    await connection.execute(f"ROLLBACK PREPARED '{row['gid']}'")

    @property
    def committed(self) -> int:
        """How many events are known to be committed."""
        return sum(fate.outcome == "committed" for fate in self.fates.values())

    async def _write_on(self, connection: Connection, number: int) -> None:
        rng = self._chances[number]
        while self._goes_on():
            with contextlib.suppress(*_REFUSED):
                await self._transact(connection, number, rng)
            await asyncio.sleep(rng.expovariate(1 / self._habits.pause_s))

    async def _transact(self, connection: Any, number: int, rng: random.Random) -> None:
        habits, ids = self._habits, [uuid4() for _ in range(rng.randint(1, 4))]
        prepare = rng.random() < habits.prepare
        await connection.execute("BEGIN")
        try:
            if prepare:  # PostgreSQL refuses to prepare a transaction that notifies: this one's trigger is silent
                await connection.execute("SET LOCAL session_replication_role = replica")
            await self._insert(connection, number, rng, ids)
            if rng.random() < habits.savepoint:
                await self._take_back(connection, number)
            if rng.random() < habits.hold:
                await asyncio.sleep(rng.uniform(0, habits.hold_s))
            if rng.random() < habits.long_hold:
                self.kinds["held long"] += 1
                await asyncio.sleep(rng.uniform(0, habits.long_hold_s))
            rows = await connection.fetch(_WRITTEN, ids)
        except BaseException:
            with contextlib.suppress(*LOST, asyncpg.PostgresError):
                await connection.execute("ROLLBACK")
            raise
        for row in rows:
            self.fates[row["event_id"]] = Fate("unknown", row["clock"], row["global_position"])
        await self._finish(connection, rng, ids, prepare=prepare)

    async def _insert(self, connection: Any, number: int, rng: random.Random, ids: Sequence[UUID]) -> None:
        way = rng.choice(("append", "append", "insert", "copy"))
        self.kinds[way] += 1
        if way == "append":
            keys = [f"shared-{rng.randrange(150)}" for _ in ids]
            await append(connection, [_event("Shared", key, "Written", i) for key, i in zip(keys, ids, strict=True)])
        elif way == "insert":
            key = f"own-{number}-{rng.randrange(20)}"
            for i in ids:
                await connection.execute(_INSERT, key, i)
        else:
            rows = [("Single", f"single-{i}", 1, i, "Copied") for i in ids]
            columns = ("aggregate_type", "aggregate_id", "aggregate_version", "event_id", "event_type")
            await connection.copy_records_to_table("events", schema_name="reactive_orch", columns=columns, records=rows)

    async def _take_back(self, connection: Any, number: int) -> None:
        self.kinds["savepoint rolled back"] += 1
        await connection.execute("SAVEPOINT chaos")
        await append(connection, [_event("Ghost", f"ghost-{number}-{uuid4()}", "Written", uuid4())])
        await connection.execute("ROLLBACK TO chaos")

    async def _finish(self, connection: Any, rng: random.Random, ids: Sequence[UUID], *, prepare: bool) -> None:
        back = rng.random() < self._habits.roll_back
        if prepare:
            self.kinds["prepared"] += 1
            name = f"chaos-{uuid4()}"
            await connection.execute(f"PREPARE TRANSACTION '{name}'")
            await asyncio.sleep(rng.uniform(0.02, 0.3))
            clock = await connection.fetchval("SELECT clock_timestamp()")
            for i in ids:
                self.fates[i].not_before = clock
            await connection.execute(f"{'ROLLBACK' if back else 'COMMIT'} PREPARED '{name}'")
        else:
            await connection.execute("ROLLBACK" if back else "COMMIT")
        self.kinds["rolled back"] += back
        for i in ids:
            self.fates[i].outcome = "rolled back" if back else "committed"


_REFUSED = (
    Conflict,
    asyncpg.UniqueViolationError,
    asyncpg.DeadlockDetectedError,
    asyncpg.UndefinedObjectError,  # a prepared transaction that took so long that it was rolled back
)
_PREPARED = """
SELECT p.gid FROM pg_prepared_xacts p
WHERE p.database = current_database() AND p.prepared < clock_timestamp() - make_interval(secs => $1)
"""
_WRITTEN = """
SELECT e.event_id, e.global_position, clock_timestamp() AS clock FROM reactive_orch.events e
WHERE e.event_id = ANY ($1::uuid[])
"""
_INSERT = """
INSERT INTO reactive_orch.events (aggregate_type, aggregate_id, aggregate_version, event_id, event_type)
SELECT 'Own', $1, coalesce(max(e.aggregate_version), 0) + 1, $2, 'Inserted' FROM reactive_orch.events e
WHERE e.bounded_context = 'default' AND e.aggregate_type = 'Own' AND e.aggregate_id = $1
"""
