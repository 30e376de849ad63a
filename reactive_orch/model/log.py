"""The logs: which there are, who reads them, places and stretches in them, and who holds them."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

from reactive_orch.incarnation import NEVER, Incarnation

LogName: TypeAlias = str

OWN_LOG: LogName = "events"
"""The log that this package brings with it, and appends to."""


class FrontierKind(enum.Enum):
    """What tells how far a log is settled; the values are those of the column `frontier`."""

    LOCKS = "locks"
    """Whoever writes to it holds a lock of its relation."""


@dataclass(frozen=True, slots=True)
class Log:
    """One row of `logs`: what a worker must know of a log to read it."""

    name: LogName
    partitions: int
    frontier: FrontierKind = FrontierKind.LOCKS


class Subscription(NamedTuple):
    """What is assigned, and has checkpoints, partition by partition: a projection that reads a log."""

    projection: str
    log: LogName


Partition: TypeAlias = int
"""0 … partitions-1, from the hash of the aggregate's id."""

Position: TypeAlias = int
"""A place in the log: `global_position`; 0 is before the first event."""


@dataclass(frozen=True, slots=True)
class Window:
    """What one read asks for: the events of `partitions` at positions in (low, high], at most `limit` of them."""

    partitions: tuple[Partition, ...]
    low: Position
    high: Position
    limit: int
    scattered: bool = field(default=False, compare=False)
    """So many events of other partitions lie between theirs that they are better read by partition than by position."""
    incarnation: Incarnation = NEVER


@dataclass(frozen=True, slots=True, kw_only=True)
class LogState:
    """What a check has found of a log; `checkpoint` is the greatest of all projections that have read this very log."""

    log: Log
    head: Position
    checkpoint: Position


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """A transaction the frontier waits for: it may have drawn a position and has not ended."""

    pid: int | None
    prepared: str | None
    """The name given to PREPARE TRANSACTION; such a one has no pid."""
    application: str
    user: str
    age_s: float
    state: str
    query: str
    """What it ran last; empty without the right to see it. May hold data: shown to operators, never exported."""

    def __str__(self) -> str:
        """Return it in the words of a log line, without the query."""
        return f"{self.who}, {self.state}, open for {self.age_s:.1f} s"

    @property
    def who(self) -> str:
        """Whose it is."""
        what = f"prepared transaction {self.prepared!r}" if self.pid is None else f"pid {self.pid}"
        return f"{what} of {self.user} ({self.application or 'no application name'})"


@dataclass(frozen=True, slots=True, kw_only=True)
class TableLock:
    """A table of ours that somebody keeps others from reading or writing, or waits to."""

    table: str
    holder: Holder
