"""Every error this package raises, named by what the one who catches it should do.

One root, so that an application can catch all of them; each branch answers a different question at the
catch site. asyncpg's own exceptions never leave `reactive_orch.postgres`, except those a user's handler
raised itself: they are kept as the `__cause__`.
"""

from __future__ import annotations


class ReactiveOrchError(Exception):
    """Root of all errors of this package."""


class ConfigError(ReactiveOrchError):
    """The operator must change something before this can work (exit code 2)."""


class UnsafeLog(ConfigError):
    """The event log, or the server it lives on, breaks a rule the frontier relies on: reading on would lose events."""


class Unavailable(ReactiveOrchError):
    """The database is out of reach or the connection was lost: back off and try again (exit code 3 at start)."""


class Standby(Unavailable):
    """Only a standby answers: the primary is needed (exit code 2 at start; later a failover may bring one)."""


class Superseded(ReactiveOrchError):
    """A checkpoint or the generation moved on: drop the work in hand, reload, go on."""


class HandlerFailed(ReactiveOrchError):
    """One attempt of a handler failed and its batch was rolled back: policy decides what comes next.

    `index` is that of the failing event in its batch, None when the handler took the whole batch at once.
    """

    def __init__(self, message: str, index: int | None = None) -> None:
        """Keep which event failed."""
        super().__init__(message)
        self.index = index


class ProjectionFailed(ReactiveOrchError):
    """A handler failed for good (exit code 1).

    `__cause__` is what it raised at its last attempt.
    """


class Conflict(ReactiveOrchError):
    """An append expected another version of the aggregate's stream: read it again and decide anew."""
