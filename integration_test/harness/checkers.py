"""What the scenarios are told with: worker processes, a load of writers, waiting for facts, checkers.

Nothing here waits for time to pass: everything waits for a fact, and fails at a deadline that is far away.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import re
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeAlias, TypeVar
from uuid import UUID, uuid4

import aiohttp
import asyncpg

from integration_test.harness import projections as test_projections
from reactive_orch import NewEvent, append

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Mapping, Sequence

    AtGate: TypeAlias = Callable[[], Awaitable[int]]
    Connection: TypeAlias = asyncpg.Connection[asyncpg.Record]

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT_S = 30.0
"""How long a test waits for what should happen at once: slow machines are no failures."""
POLL_S = 0.05

LAG_OF_ONE_PAUSE, LAG_MAX, LAG_PAUSE_S = 200, 20_000, 0.02
"""A `Load` pauses once more for each of these events that some projection is behind, up to the greatest lag."""

AGGREGATE_TYPE = "Key"
"""Of all events, as what was handled is told apart by the aggregate's id and version only."""

_T = TypeVar("_T")


async def wait_until(predicate: Callable[[], Awaitable[_T | None]], timeout_s: float = TIMEOUT_S, what: str = "") -> _T:
    """Return the predicate's first true value. Raises AssertionError with its last one at the deadline."""
    deadline = time.monotonic() + timeout_s
    while True:
        value = await predicate()
        if value:
            return value
        if time.monotonic() > deadline:
            msg = f"not within {timeout_s:g} s: {what or predicate} (last: {value!r})"
            raise AssertionError(msg)
        await asyncio.sleep(POLL_S)


@contextlib.asynccontextmanager
async def connected(url: str) -> AsyncIterator[Connection]:
    """Connect for the block."""
    connection = await asyncpg.connect(url)
    try:
        yield connection
    finally:
        await connection.close(timeout=5)


@contextlib.asynccontextmanager
async def prepared(url: str) -> AsyncIterator[Connection]:
    """Create the projections' tables and connect for the block."""
    async with connected(url) as connection:
        await test_projections.create_tables(connection)
        yield connection


# ------------------------------------------------------------------------------------------------------- workers

_ACCIDENT = re.compile(
    "Traceback|Exception ignored|never retrieved|never awaited|Task was destroyed|Warning:|unexpected |"
    "Resetting connection"  # asyncpg's, for a transaction that was not ended as it expects
)
"""What a worker's log must not hold, whatever the scenario: an error or a leak that nobody took care of."""


class WorkerProcess:
    """A worker as its users start it: a process of its own. An async context manager; killed at its end."""

    def __init__(  # noqa: PLR0913, PLR0917 - what a command line says
        self,
        database_url: str,
        name: str,
        replica_set: str = "test",
        projections: Sequence[str] = ("handled",),
        options: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
    ) -> None:
        """Prepare; entering starts it. `projections`: names from `projections.py`, or MODULE[:ATTR] with a dot."""
        self.name = name
        self.log: list[str] = []
        """Its lines on standard output and standard error, in the order in which they arrived."""
        modules = [p if "." in p else f"integration_test.harness.projections:{p}" for p in projections]
        self._command = [
            *(sys.executable, "-m", "reactive_orch", "--database-url", database_url, "--replica-set", replica_set),
            *(word for module in modules for word in ("--projection", module)),
            *("--http", "127.0.0.1:0", "--log-format", "text", *options),
        ]
        self._env = {
            **os.environ,
            test_projections.WORKER: name,
            test_projections.REPLICA_SET: replica_set,
            **(env or {}),
        }
        self._stack = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Self:
        async with contextlib.AsyncExitStack() as stack:
            self._process = await asyncio.create_subprocess_exec(
                *self._command,
                cwd=ROOT,
                env=self._env,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C ends the tests, and they end the workers
            )
            stack.push_async_callback(self._kill)
            self._reading = asyncio.create_task(self._read())
            self._http = await stack.enter_async_context(aiohttp.ClientSession())
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._stack.aclose()
        if error[0] is None:
            accidents = [line for line in self.log if _ACCIDENT.search(line)]
            assert not accidents, "\n".join([f"worker {self.name} had accidents:", *self.log])
        else:
            # Beside the failure, as pytest shows it.
            lines = [f"----- {self.name}, exit code {self._process.returncode}", *self.log, ""]
            sys.stderr.write("\n".join(lines))

    async def _kill(self) -> None:
        if self._process.returncode is None:
            self._process.kill()
            self._process.send_signal(signal.SIGCONT)
        await self._process.wait()
        await self._reading

    async def _read(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            self.log.append(line.decode(errors="replace").rstrip("\n"))

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def health_url(self) -> str | None:
        """Where its health is, once it has said so."""
        found = (re.search(r"health (http://[^\s\"]+)", line) for line in self.log)
        return next((match[1] for match in found if match), None)

    async def ready(self, timeout_s: float = TIMEOUT_S) -> Self:
        """Wait until it serves or stands by."""

        async def well() -> bool:
            self.assert_running()
            with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                if self.health_url is None:
                    return False
                status, body = await self._get()
                return status == 200 and body["status"] not in {"starting", "joining"}
            return False

        await wait_until(well, timeout_s, f"worker {self.name} is ready")
        return self

    def assert_running(self) -> None:
        """Raise AssertionError with its log if it has ended."""
        code = self._process.returncode
        assert code is None, "\n".join([f"worker {self.name} ended with exit code {code}:", *self.log])

    async def health(self, timeout_s: float = TIMEOUT_S) -> dict[str, Any]:
        """Return the body of /healthz, whatever its status."""
        return (await self._get(timeout_s))[1]

    async def _get(self, timeout_s: float = TIMEOUT_S) -> tuple[int, dict[str, Any]]:
        assert self.health_url is not None, f"worker {self.name} has not said where its health is"
        timeout = aiohttp.ClientTimeout(total=timeout_s)
        async with self._http.get(self.health_url, timeout=timeout) as response:
            return response.status, await response.json()

    async def member(self) -> int:
        """Return the id under which it is a member now."""
        return int((await self.health())["worker"])

    def signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        self._process.send_signal(number)

    async def wait(self, timeout_s: float = TIMEOUT_S) -> int:
        """Wait for its end and return its exit code; negative: the signal that killed it."""
        try:
            async with asyncio.timeout(timeout_s):
                code = await self._process.wait()
                await self._reading
        except TimeoutError:
            msg = "\n".join([f"worker {self.name} still runs after {timeout_s:g} s:", *self.log])
            raise AssertionError(msg) from None
        return code

    async def stop(self, timeout_s: float = TIMEOUT_S) -> None:
        """Send SIGTERM and expect a clean end."""
        self.signal(signal.SIGTERM)
        code = await self.wait(timeout_s)
        assert code == 0, "\n".join([f"worker {self.name}: exit code {code}", *self.log])

    async def said(self, pattern: str, timeout_s: float = TIMEOUT_S) -> re.Match[str]:
        """Wait for a line that matches."""

        async def line() -> re.Match[str] | None:
            return next((match for line in self.log if (match := re.search(pattern, line))), None)

        return await wait_until(line, timeout_s, f"worker {self.name} says {pattern!r}")


def partitions_of(health: Mapping[str, Any]) -> dict[str, int]:
    """Return projection → how many partitions the worker holds."""
    return dict(health["partitions"])


# ---------------------------------------------------------------------------------------------------------- load


class Load:
    """Concurrent writers, each on its own connection, appending small transactions to shared keys.

    An async context manager: starts on entry, stops on exit. A lost connection is made anew; what was being committed
    then is `unknown`.
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
        self.committed: set[tuple[str, int]] = set()
        """(key, version) of events whose transaction is known to be committed."""
        self.unknown: set[UUID] = set()
        """Ids of events whose COMMIT got no answer."""
        self._url = database_url
        self._tag = str(uuid4())
        self._keys = [f"key-{n}" for n in range(keys)]
        self._left = sys.maxsize if count is None else count
        self._pause_s = pause_s
        self._events_max = events_max
        self._chance = random.Random(len(self._keys))
        self._stopping = asyncio.Event()
        self._writers = writers
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        self._tasks = [asyncio.create_task(self._write()) for _ in range(self._writers)]
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def stop(self) -> None:
        """Let transactions in flight end and stop. Raises what a writer failed with."""
        self._stopping.set()
        await self.finished()

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

    async def _write(self) -> None:
        while not self._stopping.is_set() and self._left > 0:
            try:
                async with connected(self._url) as connection:
                    await self._write_on(connection)
            except (
                OSError,
                asyncpg.PostgresConnectionError,
                asyncpg.OperatorInterventionError,
                asyncpg.InterfaceError,
                asyncpg.InternalClientError,  # "cannot switch to state": the connection broke between two messages
            ):
                await asyncio.sleep(LAG_PAUSE_S)

    async def _write_on(self, connection: Connection) -> None:
        while not self._stopping.is_set() and self._left > 0:
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
            await asyncio.sleep(self._pause_s * (1 + min(lag, LAG_MAX) / LAG_OF_ONE_PAUSE))

    def _event(self) -> NewEvent:
        key = self._chance.choice(self._keys)
        return NewEvent(
            aggregate_type=AGGREGATE_TYPE,
            aggregate_id=key,
            event_type="Loaded",
            event_id=uuid4(),
            correlation_id=self._tag,
        )

    async def assert_in_log(self, connection: Connection) -> None:
        """Check that the log holds what this load committed, and besides of it at most what is unknown."""
        rows = await connection.fetch(_LOADED, self._tag)
        log = {(row["aggregate_id"], row["aggregate_version"]) for row in rows}
        assert self.committed <= log, f"committed, but not in the log: {sorted(self.committed - log)}"
        unknown = {(row["aggregate_id"], row["aggregate_version"]) for row in rows if row["event_id"] in self.unknown}
        assert log - self.committed <= unknown, f"never committed: {sorted(log - self.committed - unknown)}"


_LAG = """
SELECT coalesce((SELECT max(e.global_position) FROM reactive_orch.events e) - min(c.reached), 0)
FROM (SELECT avg(position) AS reached FROM reactive_orch.checkpoints GROUP BY replica_set, projection) c
"""
_VERSIONS = "SELECT aggregate_id, aggregate_version FROM reactive_orch.events WHERE event_id = ANY ($1::uuid[])"
_LOADED = "SELECT aggregate_id, aggregate_version, event_id FROM reactive_orch.events WHERE correlation_id = $1"


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


async def append_events(connection: Connection, count: int, *, keys: int = 50, event_type: str = "Appended") -> None:
    """Append this many events, dealt to the keys in turn, in one transaction."""
    events = [
        NewEvent(aggregate_type=AGGREGATE_TYPE, aggregate_id=f"key-{n % keys}", event_type=event_type)
        for n in range(count)
    ]
    async with connection.transaction():
        await append(connection, events)


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
SELECT reactive_orch.register_projections($1, $2::text[], ARRAY['{"aggregate_types": null, "bounded_contexts": null}'])
"""
_MOVE = """
UPDATE reactive_orch.checkpoints SET position = $4, seal = sha256('by hand')
WHERE replica_set = $1 AND projection = $2 AND partition = ANY ($3::integer[])
"""


# ------------------------------------------------------------------------------------------------------ checkers


async def handled_by(
    connection: Connection, projection: str = "handled", *, replica_set: str = "test"
) -> dict[str, set[int]]:
    """Return worker → the positions it handled."""
    rows = await connection.fetch(_HANDLED_BY, replica_set, projection)
    return {row["worker"]: set(row["positions"]) for row in rows}


_HANDLED_BY = """
SELECT h.worker, array_agg(h.position) AS positions FROM public.handled h
WHERE h.replica_set = $1 AND h.projection = $2 GROUP BY h.worker ORDER BY h.worker
"""


async def wait_all_handle(
    connection: Connection,
    workers: Iterable[str],
    projection: str = "handled",
    *,
    replica_set: str = "test",
    timeout_s: float = TIMEOUT_S,
) -> None:
    """Wait until each of these workers has handled an event that was appended after this call."""
    expected = set(workers)
    end = await connection.fetchval("SELECT coalesce(max(e.global_position), 0) FROM reactive_orch.events e")

    async def all_of_them() -> bool:
        rows = await connection.fetch(_WORKERS_AFTER, replica_set, projection, end)
        return expected <= {row["worker"] for row in rows}

    await wait_until(all_of_them, timeout_s, f"{', '.join(sorted(expected))} handle new events")


_WORKERS_AFTER = """
SELECT DISTINCT h.worker FROM public.handled h WHERE h.replica_set = $1 AND h.projection = $2 AND h.position > $3
"""


async def wait_handled(
    connection: Connection, projection: str = "handled", *, replica_set: str = "test", timeout_s: float = TIMEOUT_S
) -> None:
    """Wait until every event of the log was handled, at least once."""

    async def none_is_missing() -> bool:
        return not await connection.fetchval(_MISSING, replica_set, projection)

    await wait_until(none_is_missing, timeout_s, f"{projection} has handled all events")


_MISSING = """
SELECT count(*) FROM reactive_orch.events e WHERE NOT EXISTS
    (SELECT FROM public.handled h WHERE h.replica_set = $1 AND h.projection = $2 AND h.position = e.global_position)
"""


async def assert_each_once(connection: Connection, projection: str = "handled", *, replica_set: str = "test") -> None:
    """Check that the log and what was handled are the same: nothing lost, nothing twice, no ghosts, no forgeries."""
    wrong = await connection.fetch(_NOT_ONCE, replica_set, projection)
    lost = [row["position"] for row in wrong if not row["times"]]
    twice = {row["position"]: row["workers"] for row in wrong if row["times"] > 1}
    ghosts = [row["position"] for row in wrong if not row["committed"]]
    assert not wrong, f"{projection} of {replica_set}: lost {lost}, twice {twice}, ghosts {ghosts}, all: {wrong}"


_NOT_ONCE = """
SELECT coalesce(e.global_position, h.position) AS position, count(h.position) AS times,
       e.global_position IS NOT NULL AS committed, array_agg(h.worker ORDER BY h.id) AS workers
FROM reactive_orch.events e
FULL JOIN (SELECT * FROM public.handled WHERE replica_set = $1 AND projection = $2) h ON h.position = e.global_position
GROUP BY e.global_position, h.position
HAVING count(h.position) <> 1 OR e.global_position IS NULL
    OR bool_or((h.key, h.version, h.partition) <> (e.aggregate_id, e.aggregate_version, e.partition))
ORDER BY 1
"""


async def assert_in_order(connection: Connection) -> None:
    """Check that each projection handled each key's events one after the other, without a gap, by whomever.

    The order is that of `handled.id` (see projections.py); the transactions' ids must agree with it.
    """
    wrong = await connection.fetch(_OUT_OF_ORDER)
    assert not wrong, f"out of order: {wrong}"


_OUT_OF_ORDER = """
SELECT * FROM (
    SELECT h.*, lag(h.version, 1, 0::bigint) OVER w AS previous, lag(h.position, 1, 0::bigint) OVER w AS after,
           lag(h.txid, 1, 0::bigint) OVER w AS previous_txid
    FROM public.handled h WINDOW w AS (PARTITION BY h.replica_set, h.projection, h.key ORDER BY h.id)) o
WHERE o.version <> o.previous + 1 OR o.position <= o.after OR o.txid < o.previous_txid
ORDER BY o.replica_set, o.projection, o.key, o.id
"""


async def generations(connection: Connection, replica_set: str = "test") -> list[asyncpg.Record]:
    """Return the generations, the oldest first."""
    return await connection.fetch(_GENERATIONS, replica_set)


_GENERATIONS = "SELECT * FROM reactive_orch.generations g WHERE g.replica_set = $1 ORDER BY g.number"


async def backends(connection: Connection, kind: str = "%") -> int:
    """Return how many connections workers have to this database, of one kind or all."""
    return int(await connection.fetchval(_BACKENDS, f"reactive_orch:{kind}:%"))


_BACKENDS = """
SELECT count(*) FROM pg_stat_activity a WHERE a.datname = current_database() AND a.application_name LIKE $1
"""


async def assert_nobody_left(connection: Connection) -> None:
    """Check that after the last worker there are no members, no locks and no connections."""
    assert await connection.fetch("SELECT * FROM reactive_orch.members") == []

    async def gone() -> bool:  # the server needs a moment to notice a closed connection
        return await backends(connection) == 0

    await wait_until(gone, what="no worker is connected")


async def owners(connection: Connection, projection: str = "handled", replica_set: str = "test") -> list[int]:
    """Return the owner of each partition, by index; 0 for nobody, empty without an assignment."""
    return list(await connection.fetchval(_OWNERS, replica_set, projection) or ())


_OWNERS = "SELECT a.owners FROM reactive_orch.assignments a WHERE a.replica_set = $1 AND a.projection = $2"


async def wait_settled(
    connection: Connection, replica_set: str = "test", members: int = 1, timeout_s: float = TIMEOUT_S
) -> asyncpg.Record:
    """Wait until the replica set has this many members, nobody waits or leaves, and its generation is settled.

    Returns the generation's row.
    """

    async def settled() -> asyncpg.Record | None:
        return await connection.fetchrow(_SETTLED, replica_set, members)

    return await wait_until(settled, timeout_s, f"{replica_set} is settled with {members} members")


_SETTLED = """
SELECT g.* FROM reactive_orch.replica_sets r
JOIN reactive_orch.generations g ON g.replica_set = r.name AND g.number = r.generation
WHERE r.name = $1 AND cardinality(g.members) = $2 AND g.completed_at IS NOT NULL
  AND g.members = ARRAY(SELECT m.id FROM reactive_orch.members m WHERE m.replica_set = r.name ORDER BY m.id)
"""
