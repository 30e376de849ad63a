"""The configuration: one frozen value, made once, all complaints reported together.

Where a value comes from (options, environment, defaults) is decided by the command line; here it is checked, with the
relations between values.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from reactive_orch.errors import ConfigError
from reactive_orch.model.projections import RETRIES_MAX, TIMEOUT_MAX_S, TIMEOUT_MIN_S, OnError, is_number, is_whole

if TYPE_CHECKING:
    from collections.abc import Callable

OWN_CONNECTIONS = 3
"""Outside the pools: that of its members, that on which it follows the log, and a worker's watch over another one."""
COORDINATION_MIN, COORDINATION_MAX = 2, 4
CONNECTIONS_MIN = OWN_CONNECTIONS + COORDINATION_MIN + 1
CONNECTIONS_MAX = 1000


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_bool(value: object) -> bool:
    return isinstance(value, bool)


_TYPES: dict[str, tuple[Callable[[object], bool], str]] = {
    "str": (_is_text, "text"),
    "OnError": (_is_text, "text"),
    "int": (is_whole, "a whole number"),
    "float": (is_number, "a number"),
    "bool": (_is_bool, "True or False"),
}
"""What a field is annotated with -> whether a value is that, and its name for people."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """What a process needs to know. Durations are in seconds, as the names say."""

    database_url: str
    """postgresql://… of the primary, or key=value words; several hosts are allowed."""
    batch_events: int = 100
    """Events handled in one transaction, at most. Larger: more throughput; smaller: less to do again after an error."""
    heartbeat_s: float = 2.0
    """How often a worker says that it lives."""
    stale_after_s: float = 10.0
    """Without a heartbeat for this long a worker is removed by the others. Safety does not depend on it."""
    retries: int = 5
    """How often a failing event is tried again. This and the next two a projection may say for itself."""
    on_error: OnError = "park"
    """Then: `park`, its key waits for somebody and all others go on, or `halt`, its projection rests on all workers."""
    handler_timeout_s: float = 60.0
    """One call of a handler may take this long, then its batch is rolled back."""
    grace_s: float = 30.0
    """How long a stop waits for batches in flight."""
    connections_max: int = 17
    """All that a process may have open to its database: OWN_CONNECTIONS outside the pools (each further worker of a
    node has one more), a quarter, 2 to 4, for coordination, and the rest for batches and windows."""
    rebalance_s: float = 60.0
    """A worker that has been adopting a generation for longer says that it is not ready."""
    trace_events: bool = False
    """A span for each event, besides the one for its batch: for looking closely, not for every day."""

    def __post_init__(self) -> None:
        """Raise ConfigError with everything that is wrong: first what is of another type, then what breaks a rule."""
        complaints = self._of_other_types() or [text for broken, text in self._rules() if broken]
        if complaints:
            raise ConfigError("; ".join(complaints))

    def _of_other_types(self) -> list[str]:
        """Return what is said of each; its value is not shown, it might be of an address."""
        named = ((each.name, *_TYPES[str(each.type)], getattr(self, each.name)) for each in fields(self))
        return [
            f"{name} must be {wanted}, not {type(value).__name__}"
            for name, is_it, wanted, value in named
            if not is_it(value)
        ]

    def _rules(self) -> list[tuple[bool, str]]:
        return [
            (not self.database_url.strip(), "database_url is empty: give the address of the database"),
            (
                not 1 <= self.batch_events <= 100_000,
                f"--batch (batch_events) must be 1 to 100000, not {self.batch_events}",
            ),
            (
                not 0.05 <= self.heartbeat_s <= 3600,
                f"--heartbeat (heartbeat_s) must be 0.05 to 3600 seconds, not {self.heartbeat_s:g}",
            ),
            (
                not 3 * self.heartbeat_s <= self.stale_after_s + 1e-9,  # 3 * 0.1 is more than 0.3
                f"--stale-after (stale_after_s) must be at least three heartbeats ({3 * self.heartbeat_s:g} s), not "
                f"{self.stale_after_s:g}: one lost heartbeat is no death",
            ),
            (
                self.stale_after_s > 86_400,
                f"--stale-after (stale_after_s) must be at most a day (86400 s), not {self.stale_after_s:g}",
            ),
            (
                not 0 <= self.retries <= RETRIES_MAX,
                f"--retries (retries) must be 0 to {RETRIES_MAX}, not {self.retries}",
            ),
            (
                self.on_error not in {"park", "halt"},
                f"--on-error (on_error) must be park or halt, not {self.on_error}",
            ),
            (
                not TIMEOUT_MIN_S <= self.handler_timeout_s <= TIMEOUT_MAX_S,
                f"--handler-timeout (handler_timeout_s) must be {TIMEOUT_MIN_S:g} to {TIMEOUT_MAX_S:g} seconds, "
                f"not {self.handler_timeout_s:g}",
            ),
            (not self.grace_s >= 0, "grace_s must not be negative"),
            (not self.rebalance_s > 0, "rebalance_s must be positive"),
            (
                not CONNECTIONS_MIN <= self.connections_max <= CONNECTIONS_MAX,
                f"--connections (connections_max) must be {CONNECTIONS_MIN} to {CONNECTIONS_MAX}, not "
                f"{self.connections_max}: a process has {OWN_CONNECTIONS} of its own, {COORDINATION_MIN} for "
                "coordination and at least one for batches",
            ),
        ]

    @property
    def coordination_connections(self) -> int:
        """How many are for observations, changes and take-overs; one of these may wait for a row."""
        return min(max(self.connections_max // 4, COORDINATION_MIN), COORDINATION_MAX)

    @property
    def work_connections(self) -> int:
        """How many are for batches and windows: so many lanes work at the same moment."""
        return self.connections_max - OWN_CONNECTIONS - self.coordination_connections


DEFAULTS = Config(database_url="postgresql://")
"""What a process needs to know that was told nothing; where its database is it must still be told."""


def shown(url: str) -> str:
    """Return a database URI without its password, for people to read."""
    without = re.sub(r"(//[^:/?#@]*):[^/?#]*@", r"\1@", url)
    return re.sub(r"([?&]\w*password=)[^&]*", r"\1…", without)
