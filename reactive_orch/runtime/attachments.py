"""The workers that run on a node; they end with it when it is left before them."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Protocol

import anyio

from reactive_orch.core.awaiters import awaiter_of
from reactive_orch.errors import ConfigError
from reactive_orch.postgres.pool import CLEANUP_TIMEOUT_S
from reactive_orch.runtime.membership.leaving import LEAVE_TIMEOUT_S

if TYPE_CHECKING:
    from collections.abc import Iterator

    from reactive_orch.model.awaiter import Awaiter
    from reactive_orch.model.problems import Problem
    from reactive_orch.model.status import WorkerStatus

END_TIMEOUT_S = LEAVE_TIMEOUT_S + CLEANUP_TIMEOUT_S
"""How long a node that is left waits for its workers. A handler that does not heed its cancellation may go on."""


class Attached(Protocol):
    """A worker, as its node knows it."""

    @property
    def replica_set(self) -> str:
        """Of what it is, or will be, a member."""
        ...

    @property
    def busy(self) -> list[str]:
        """The projections that have a batch in hand."""
        ...

    def wake(self, source: str) -> None:
        """Make it look; `source` says what told, for people to see."""
        ...

    def awaited(self, awaiter: Awaiter) -> None:
        """Make it answer somebody who waits, when it has got that far."""
        ...

    def watch_progress(self) -> list[Problem]:
        """Make it see whether it gets on; return all that is wrong, as far as it knows."""
        ...

    def status(self) -> WorkerStatus:
        """Return how it stands; from memory, in any thread."""
        ...


class Attachments:
    """Which workers run on a node."""

    def __init__(self) -> None:
        """Start with none."""
        self._scopes: dict[Attached, anyio.CancelScope] = {}
        self._none_left = anyio.Event()
        self._ended = False

    def __iter__(self) -> Iterator[Attached]:
        """Go over those there are now."""
        return iter(tuple(self._scopes))

    def awaited(self, told: str) -> None:
        """Tell those who may answer that somebody waits, as a notification has told."""
        if (awaiter := awaiter_of(told)) is not None:
            for worker in self:
                if worker.replica_set == awaiter.replica_set:
                    worker.awaited(awaiter)

    @contextlib.contextmanager
    def holding(self, worker: Attached) -> Iterator[None]:
        """Count a worker among them. Raises ConfigError if `end` has ended it."""
        with anyio.CancelScope() as scope:
            self._scopes[worker] = scope
            try:
                yield
            finally:
                del self._scopes[worker]
                if self._ended and not self._scopes:
                    self._none_left.set()
        if scope.cancelled_caught:
            msg = "its node was left while this worker ran: inside the node's block, stop it and wait for its end"
            raise ConfigError(msg)

    async def end(self) -> None:
        """Cancel all, and wait for a while until they have left their replica sets: they need the node for that."""
        self._ended = True
        for scope in self._scopes.values():
            scope.cancel()
        if self._scopes:
            with anyio.move_on_after(END_TIMEOUT_S, shield=True):
                await self._none_left.wait()
