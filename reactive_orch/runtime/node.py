"""One process's side of one database: its connections, its view of the log, and the workers that live on them.

However many replica sets and projections a process runs, it has one membership connection and one follower of each log.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import time
from typing import TYPE_CHECKING, Self

import anyio

from reactive_orch.address import database_url
from reactive_orch.config import Config
from reactive_orch.core.connections import kept_warm, needed
from reactive_orch.errors import ConfigError, Superseded, Unavailable
from reactive_orch.model.reports import (
    Interrupted,
    LoopBlocked,
    LoopMeasured,
    NodeStarted,
    NodeStopped,
    Notified,
    PoolWaited,
    SessionBack,
    SessionLost,
    WorkerStarted,
)
from reactive_orch.postgres import log_check, migrations
from reactive_orch.postgres.database import Database
from reactive_orch.runtime import status
from reactive_orch.runtime.accounts import Accounts
from reactive_orch.runtime.attachments import Attachments
from reactive_orch.runtime.backoff import Backoff
from reactive_orch.runtime.cancellation import demand_asyncio, lasting_group
from reactive_orch.runtime.handling.row_wait import RowWait
from reactive_orch.runtime.interruptions import passing_over
from reactive_orch.runtime.membership.leaving import Departures
from reactive_orch.runtime.membership.session import Listeners, Session
from reactive_orch.runtime.problem_watch import ProblemWatch
from reactive_orch.runtime.reading.follower import LogFollower
from reactive_orch.telemetry.observers import watchers

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Iterator
    from types import TracebackType

    from reactive_orch.model import Log, LogName
    from reactive_orch.model.reports import Observer, Tracing
    from reactive_orch.model.status import Status
    from reactive_orch.runtime.attachments import Attached

LOOP_LOOK_S = 0.25
LOOP_DELAY_REPORTED_S = 1.0
PROGRESS_LOOK_S = 1.0
_BUSY = contextlib.AsyncExitStack()
"""In the place of a node's own while it is being entered or left."""
REOPEN_MOST_S = 0.5
"""While the database is away one connection of a process tries again as often as this: the others wait for it."""


class Node:
    """What the workers of a process share. An async context manager.

    Entering raises ConfigError (schema missing, unsafe log), Standby or Unavailable; leaving the block is when a
    failure of its own background tasks surfaces, in an exception group. After either it may be entered again, under a
    name of its own: then it has new connections and remembers nothing. A worker that still runs when the block is left
    ends as if it were cancelled, and its `run` raises ConfigError.
    """

    def __init__(
        self, config: Config, observers: Iterable[Observer] | None = None, tracing: Tracing | None = None
    ) -> None:
        """Prepare; entering the context connects.

        `observers` are told what happens, at once: they must not wait. `tracing` is asked for what traces must know
        before something is over. None: metrics, spans and log lines. What they raise does not get out.

        Raises ConfigError for what is no configuration, and for an address that cannot be.
        """
        _demand_config(config)
        self.config = config
        self.watchers = watchers(observers, tracing)
        self._stack: contextlib.AsyncExitStack | None = None
        self._prepare()

    def _prepare(self) -> None:
        """Make all that belongs to one entry; nothing of it belongs to an event loop yet."""
        config = self.config
        label = f"{socket.gethostname().split('.')[0][:20]}:{os.getpid()}:{secrets.token_hex(3)}"
        self.database = Database(
            database_url(config.database_url, None),
            label=label,
            connections_max=config.work_connections,
            coordination_max=config.coordination_connections,
            handler_timeout_s=config.handler_timeout_s,
        )
        self.database.shortage.needs = needed(config.connections_max)
        emit, self._workers = self.watchers.emit, Attachments()
        listeners = Listeners(
            account=Accounts(self.status).of,
            events=self._ring,
            generation=self._generation,
            attention=self._attention,
            awaited=self._workers.awaited,
            emit=emit,
            look=self._look,
        )
        self.session = Session(self.database, config.heartbeat_s, listeners)
        self.logs: dict[LogName, LogFollower] = {}
        self.row_wait = RowWait(self.database, emit)
        self.departures = Departures(self.database, self.session, self.watchers)
        self.warm = False
        """Whether connections for a take-over have been opened."""
        self.alone = anyio.Lock()
        """Held while an event is tried that may end this process: what is in hand then is one of these at most."""
        self.problems = ProblemWatch(emit)

    @property
    def label(self) -> str:
        """The name of this process, drawn anew at every entry."""
        return self.database.label

    @property
    def entered(self) -> bool:
        """Whether it is connected and follows its logs: its block is entered and has not been left."""
        return self._stack not in (None, _BUSY)

    def status(self) -> Status:
        """Return how this process and its workers stand; from memory, in any thread.

        Before the node is entered there are no logs, pools and workers yet; after it was left nobody should ask.
        """
        workers = (worker.status() for worker in self._workers)
        return status.of_process(self.database, self.session, self.logs, workers, self.problems.standing)

    def _ring(self) -> None:
        due = all(follower.wakeup.is_set for follower in self.logs.values())
        self.watchers.emit(Notified("events", "coalesced" if due else "used"))
        for follower in self.logs.values():
            follower.wakeup.set("notify")

    def _generation(self, replica_set: str) -> None:
        ours = self._wake(replica_set, "notify")
        self.watchers.emit(Notified("generations", "used" if ours else "ignored"))

    def _attention(self, replica_set: str) -> None:
        self._wake(replica_set, "heartbeat")

    def _wake(self, replica_set: str, source: str) -> bool:
        concerned = [worker for worker in self._workers if worker.replica_set == replica_set]
        for worker in concerned:
            worker.wake(source)
        return bool(concerned)

    def _look(self) -> None:
        for follower in self.logs.values():
            follower.wake()
        for worker in self._workers:
            worker.wake("reconnect")

    @contextlib.contextmanager
    def attached(self, worker: Attached) -> Iterator[None]:
        """Wake this worker whenever its replica set may have changed.

        Raises ConfigError when the node is not entered, or is left meanwhile: the worker is cancelled then.
        """
        if not self.entered:
            msg = "a worker runs on a node that has been entered: async with node, then run its workers inside"
            raise ConfigError(msg)
        self.watchers.emit(WorkerStarted(worker.replica_set))
        try:
            with self._workers.holding(worker):
                yield
        finally:
            self.problems.forget(worker.replica_set)

    async def __aenter__(self) -> Self:
        """Connect, check schema and log, start following both."""
        demand_asyncio()
        if self._stack is not None:
            msg = "this node has been entered already: leave it first, or make another one"
            raise ConfigError(msg)
        self._stack = _BUSY
        async with contextlib.AsyncExitStack() as stack:
            stack.callback(setattr, self, "_stack", None)
            self._prepare()
            await self.database.open()
            stack.push_async_callback(self.database.close)
            self.logs.update({log.name: self._follower(log) for log in await self._checked()})
            await self.session.open()
            stack.push_async_callback(self.session.close)
            self.database.waited = lambda pool, seconds: self.watchers.emit(PoolWaited(pool, seconds))
            self.watchers.emit(NodeStarted(self.status))
            stack.callback(self.watchers.emit, NodeStopped(self.status))
            self.database.admission.on_lost.append(self._look)
            await stack.enter_async_context(self._background())
            stack.push_async_callback(self._workers.end)
            self._stack = stack.pop_all()
        return self

    def _follower(self, log: Log) -> LogFollower:
        return LogFollower(log, self.database, lambda: self.session.connected, self.watchers.emit)

    async def _checked(self) -> list[Log]:
        """Check schema and logs; return the logs there are."""
        try:
            async with self.database.coordination() as connection:
                await migrations.check(connection)
                return [(await log_check.check(connection, log.name)).log for log in await log_check.logs(connection)]
        except Superseded as error:
            msg = f"the schema cannot be read, somebody has locked it: {error}"
            raise Unavailable(msg) from error

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        """End the workers that still run, stop following, close the connections."""
        stack, self._stack = self._stack, _BUSY
        assert stack is not None, "it was entered"
        return await stack.__aexit__(kind, error, trace)

    @contextlib.asynccontextmanager
    async def _background(self) -> AsyncIterator[None]:
        raised = None
        async with lasting_group() as tasks:
            with self.watchers.tracing.quiet():
                tasks.start_soon(self._keep_session)
                for follower in self.logs.values():
                    tasks.start_soon(follower.run)
                tasks.start_soon(self.row_wait.run)
                tasks.start_soon(self.departures.run)
                tasks.start_soon(self._measure_loop)
                tasks.start_soon(self._watch_progress)
            try:
                yield
            except Exception as error:
                if tasks.cancel_scope.cancel_called:  # something here has failed, too: both, in one group
                    raise
                raised = error  # what its user's block raises stays as it is, in no group
            tasks.cancel_scope.cancel()
        if raised is not None:
            raise raised

    async def _keep_session(self) -> None:
        while True:
            try:
                await self.session.beat_until_lost()
            except Unavailable as error:
                since_ns, cause = time.time_ns(), error
                self.watchers.emit(Interrupted("membership", error))
                self.watchers.emit(SessionLost(error))
            await self._reopen()
            self.watchers.emit(SessionBack(since_ns, cause))

    async def _measure_loop(self) -> None:
        while True:
            started = time.monotonic()
            await anyio.sleep(LOOP_LOOK_S)
            # By how much the loop was late: a handler that does not await holds up all.
            delay_s = max(time.monotonic() - started - LOOP_LOOK_S, 0.0)
            self.watchers.emit(LoopMeasured(delay_s))
            if delay_s > LOOP_DELAY_REPORTED_S:
                busy = sorted({name for worker in self._workers for name in worker.busy})
                self.watchers.emit(LoopBlocked(delay_s, busy))

    async def _watch_progress(self) -> None:
        while True:
            await anyio.sleep(PROGRESS_LOOK_S)
            self.database.close_unused(kept_warm)
            self.problems.look([problem for worker in self._workers for problem in worker.watch_progress()])

    async def _reopen(self) -> None:
        backoff = Backoff(0.05, REOPEN_MOST_S)
        while True:
            await anyio.sleep(backoff.next_s())
            # ConfigError: a half-restored database, perhaps; if it stays, the follower says so and stops the process.
            with passing_over(self.watchers.emit, "membership", Unavailable, Superseded, ConfigError):
                await self.session.reopen()
                self.database.admission.back()
                return


def _demand_config(config: object) -> None:
    if not isinstance(config, Config):
        msg = f"a node is made of a configuration: Node(Config(database_url=…)), not {type(config).__name__}"
        raise ConfigError(msg)
