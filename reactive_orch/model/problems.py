"""What can be wrong: every code, how grave it is, the words that all use for it, and what helps.

`core.problems` finds problems in what the tables say, `core.health` in what a worker knows of itself; `status`, health,
log lines, metrics and alerts show what they have found.
"""

from __future__ import annotations

from dataclasses import dataclass
from shlex import quote
from typing import Literal, NamedTuple, TypeAlias

Level: TypeAlias = Literal["bad", "warn", "note"]
"""bad: something stands still, or is not done; warn: somebody should look; note: somebody has wanted it so."""
Spoils: TypeAlias = Literal["live", "ready", "well", "nothing"]
"""The first of `/livez`, `/readyz`, `/healthz` that says no; those after it say no as well."""

Key: TypeAlias = tuple[str, str, str, str]
"""What a problem is, and of what."""

LEVELS: tuple[Level, ...] = ("bad", "warn", "note")


class Code(NamedTuple):
    """What a problem is, unless it says otherwise because it lasts."""

    level: Level
    words: str
    command: str = ""
    """The command of this package that a person runs first, with its options; empty where there is none."""
    spoils: Spoils = "nothing"


_START = "{replica_set} --projection MODULE"
"""A worker; only who has written the projections knows which module has them."""

CODES: dict[str, Code] = {
    # Of a worker, which knows of them itself.
    "stopped": Code("bad", "stopped", spoils="live"),
    "overdue": Code("bad", "has not looked at its replica set for too long", spoils="live"),
    "draining": Code("note", "draining", spoils="ready"),
    "unavailable": Code("bad", "database unavailable", spoils="ready"),
    "disconnected": Code("bad", "membership connection lost", spoils="ready"),
    "expelled": Code("bad", "removed by the others, joining anew", spoils="ready"),
    "nothing_to_run": Code("bad", "nothing to run until a filter is accepted", spoils="ready"),
    "interrupted": Code("warn", "{what}"),
    "unrung": Code("warn", "writers do not ring, the log is looked at by the clock"),
    "notifications_missed": Code("warn", "notifications do not arrive, polling works"),
    "retrying": Code("warn", "projection {projection} tries a failing event again"),
    "stepped_down": Code(
        "warn", "projection {projection} is not run here for a while, what fails here succeeds elsewhere"
    ),
    "connection_refused": Code("warn", "a connection was refused: {what}"),
    # Of the server.
    "connections_short": Code("bad", "{what}"),
    # Of a log.
    "log_refused": Code("bad", "{what}"),
    "log_held": Code("bad", "the log cannot be read on: a transaction holds it", spoils="well"),
    # Of a replica set.
    "no_workers": Code("bad", "no worker lives", _START),
    "unsettled": Code("warn", "generation {what} is not settled yet", "trace {of}"),
    "worker_silent": Code("warn", "worker {what} says nothing, although it is connected"),
    "worker_gone": Code("note", "{what} gone, and nobody is there to note it"),
    # Of a projection.
    "halted": Code("bad", "projection {projection} is halted", "dead-letters show {of}"),
    "stands_still": Code("bad", "no progress on projection {projection}"),
    "suspended": Code("warn", "projection {projection} is suspended", "resume {of}"),
    "unserved": Code("warn", "projection {projection} is run by no worker", _START),
    "refused": Code("warn", "projection {projection} is recorded with another filter", "rewind {of} --to keep"),
    "keys_wait": Code("warn", "projection {projection}: {what} behind a failed event", "dead-letters show {of}"),
    "paused": Code("note", "projection {projection} is paused", "resume {of}"),
    "deadlocks": Code(
        "note",
        "projection {projection}: handlers deadlock, batches go one at a time; give events that share rows one "
        "partition key, or write rows sorted, in one statement a batch",
    ),
}
"""docs/operations.md says of each what it means, and what helps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Something that is not as it should be."""

    level: Level
    code: str
    """A word for programs, one of `CODES`."""
    words: str
    replica_set: str = ""
    """Whose it is; empty if it is one of a process or of a log."""
    projection: str = ""
    """Which it is about; empty if it is about none."""
    log: str = ""
    age_s: float | None = None
    """For how long it has been so; None if that is not known."""
    who: str = ""
    """The worker, transaction or person behind it; empty if there is none."""
    command: str = ""
    """What helps, to be given to a shell; empty where nothing of that kind does."""
    spoils: Spoils = "nothing"
    """What it means for the health of a worker that knows of it."""

    @property
    def key(self) -> Key:
        """What stays the same of it, however long it lasts and whatever becomes of it."""
        return self.code, self.replica_set, self.projection, self.log

    @property
    def text(self) -> str:
        """Whose it is, and its words."""
        return f"replica set {self.replica_set}: {self.words}" if self.replica_set else self.words


def words(code: str, projection: str = "", what: object = "") -> str:
    """Return the words for a code. `what`: the rest of what it is about."""
    return CODES[code].words.format(projection=projection, what=what)


def command(code: str, replica_set: str = "", projection: str = "") -> str:
    """Return the command that helps, to be given to a shell; empty if there is none."""
    if not CODES[code].command:
        return ""
    named = option("--replica-set", replica_set)
    of = f"{named} {option('--projection', projection)}" if projection else named
    return f"python -m reactive_orch {CODES[code].command.format(of=of, replica_set=named)}"


def option(name: str, value: str) -> str:
    """Return an option as a shell takes it; a value that begins as an option does is not taken for one."""
    return f"{name}={quote(value)}" if value.startswith("-") else f"{name} {quote(value)}"


def keys(number: int) -> str:
    """Return the words for so many keys that wait."""
    return f"{number} {'key waits' if number == 1 else 'keys wait'}"
