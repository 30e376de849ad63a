"""Workers for as long as a block runs: that of an application's lifespan, or of its main function."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from typing import TYPE_CHECKING, Never

import anyio

from reactive_orch.errors import ConfigError, named
from reactive_orch.process.explaining import telling
from reactive_orch.runtime.cancellation import demand_asyncio
from reactive_orch.runtime.worker import Worker, demand_workers

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager
    from types import TracebackType

_logger = logging.getLogger("reactive_orch")

FAILURES = (Exception, BaseExceptionGroup)
"""What ends a worker; in a group, what a hook's `sys.exit()` raises, too. A cancellation is none."""


def running(*workers: Worker) -> AbstractAsyncContextManager[None]:
    """Run these workers, and enter their nodes, for an `async with` block; at its end they leave in good order.

    However the block ends, batches in flight may take up to their node's `grace_s`, in seconds, before they are rolled
    back. A node that was entered before stays so. The block may be entered in one task and left in another.

    When a worker fails for good, a log line says why, and the application is to end: the process is sent SIGTERM if
    something in it heeds that, as servers do, else the task that has entered the block is cancelled. The end of the
    block raises what the worker failed with, in an exception group; what the block itself raises comes before it.

    Entering raises what a node does: ConfigError, Standby or Unavailable. Raises ConfigError for what is no worker.
    """
    demand_workers("running", workers)
    return _Running(workers)


class _Running:
    """A task of its own has nodes and workers: so whoever enters the block and whoever leaves it may be two."""

    def __init__(self, workers: tuple[Worker, ...]) -> None:
        self._workers = workers
        self._failures: list[BaseException] = []
        self._ending = False
        self._cancelled = False
        """For a failure, and not by others: whoever has entered the block."""

    async def __aenter__(self) -> None:
        demand_asyncio()
        user = asyncio.current_task()
        assert user is not None, "this is a coroutine of a task"
        self._user, self._cancels = user, user.cancelling()
        self._stop, begun = asyncio.Event(), asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._run(begun), name="reactive_orch.running")
        try:
            await asyncio.wait([begun, self._task], return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            failed = self._took_back()  # a worker, as soon as it began
            await self._end(at_once=not failed)
            if failed:
                self._raise()
            raise
        if not begun.done():
            await self._task  # it raises why

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._end()
        if error is not None and not (self._took_back() and isinstance(error, asyncio.CancelledError)):
            return  # that it is raised goes on
        if self._failures:
            self._raise()

    def _raise(self) -> Never:
        raise self._failures[0] if len(self._failures) == 1 else BaseExceptionGroup("workers failed", self._failures)

    async def _run(self, begun: asyncio.Future[None]) -> None:
        try:
            await self._serve(begun)
        except FAILURES as error:  # of a node, or of whatever comes first
            if not begun.done():
                raise
            self._fail(error)

    async def _serve(self, begun: asyncio.Future[None]) -> None:
        async with contextlib.AsyncExitStack() as stack:
            for node in dict.fromkeys(worker.node for worker in self._workers):
                if not node.entered:
                    await stack.enter_async_context(node)
            async with anyio.create_task_group() as tasks:
                for worker in self._workers:
                    tasks.start_soon(self._work, worker)
                begun.set_result(None)
                await self._stop.wait()
                for worker in self._workers:
                    worker.stop()

    async def _work(self, worker: Worker) -> None:
        try:
            await worker.run()
        except FAILURES as error:  # the others are to leave in good order
            self._fail(error, worker.replica_set)

    def _fail(self, error: BaseException, replica_set: str = "") -> None:
        """Say it, and have the application end."""
        self._failures.append(error)
        told = telling(error)
        words = "%s has failed for good, and its application is to end: %s"
        who = f"the worker of {replica_set}" if replica_set else "a node"
        fields = {"event": "worker_failed", "replica_set": replica_set}
        _logger.error(words, who, told if isinstance(told, ConfigError) else named(told), extra=fields)
        if not (self._ending or self._stop.is_set()):
            self._end_application()
        self._stop.set()

    def _end_application(self) -> None:
        if callable(signal.getsignal(signal.SIGTERM)):
            os.kill(os.getpid(), signal.SIGTERM)
        elif not self._user.done():
            self._cancelled = self._user.cancel()

    def _took_back(self) -> bool:
        """Take back that the user was cancelled for a failure; return whether nobody else has cancelled it, too."""
        if not self._cancelled or asyncio.current_task() is not self._user:
            return False
        self._cancelled = False
        return self._user.uncancel() <= self._cancels

    async def _end(self, *, at_once: bool = False) -> None:
        """Wait until all have left; a cancellation, another one if it is for one that this is called, hurries them."""
        self._ending, hurried = True, False
        self._stop.set()
        if at_once:
            self._task.cancel()
        with anyio.CancelScope(shield=True):
            while not self._task.done():
                try:
                    await asyncio.wait([self._task])
                except asyncio.CancelledError:
                    if not self._took_back():
                        hurried = self._task.cancel()
        if hurried:
            raise asyncio.CancelledError
