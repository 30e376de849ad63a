"""What a look at a database brings back that is to say what will not work on it. None: this user may not know it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from reactive_orch.model.log import Holder, LogName, Position, TableLock
    from reactive_orch.model.overview import Seen


@dataclass(frozen=True, slots=True, kw_only=True)
class HostSeen:
    """One host of the address."""

    url: str
    """Without a password."""
    state: Literal["primary", "standby", "silent"]
    why: str = ""
    """Why it is silent."""
    server: str = ""
    """Which server it is: the same one may have several names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionSeen:
    """Whether a connection is a session of the server's, as workers need it."""

    pooled: bool
    """Something stands between that speaks for the server: a pooler."""
    refuses: str | None
    """What it says of the settings that workers ask for when they connect; None if it takes them."""
    drops: Sequence[str] | None
    """Those of these settings that do not reach the server."""
    hears: bool | None
    """A session that listens hears what another one notifies."""
    locks: bool | None
    """What a session has locked is locked for another one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSeen:
    """Where a connection leads."""

    version: int
    """As server_version_num."""
    release: str
    standby: bool
    read_only: bool
    """Transactions of this user are, by default."""
    database: str
    user: str
    encoding: str
    ahead_s: float
    """By how much its clock is ahead of this machine's; 0 where that is no more than the answer took."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SchemaSeen:
    """How the schema stands."""

    complaint: str | None
    """Why this program cannot work with it."""
    migrate_helps: bool
    step: int
    """The newest step applied; 0 for none."""
    newest: int
    """The newest step that this program knows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CollationSeen:
    """The version of the database's collation."""

    recorded: str | None
    actual: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Right:
    """Something that a role needs."""

    privileges: str
    kind: str
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PowersSeen:
    """What a role may do beyond our schema."""

    sees_queries: bool
    ends_sessions: bool
    """Those of all workers there are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexSeen:
    """An index."""

    name: str
    definition: str
    valid: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class TriggerSeen:
    """A trigger."""

    name: str
    table: str
    fires: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class SilencedSeen:
    """For whom triggers do not fire. None: for every role, in every database."""

    role: str | None
    database: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenSeen:
    """An open transaction of any database, perhaps a prepared one."""

    holder: Holder
    here: bool
    """It is one of this database."""
    keeps_rows: bool
    """Vacuum keeps for it what has been changed since."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotSeen:
    """A replication slot for which vacuum keeps rows."""

    name: str
    active: bool
    transactions: int
    """How many have begun since."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointsSeen:
    """The table of the checkpoints, as statistics know it."""

    live: int
    dead: int
    bytes: int
    autovacuum: bool
    """Of the table."""
    server_autovacuum: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitSeen:
    """A limit of connections."""

    of: Literal["server", "database", "role"]
    most: int
    """What this role can have of it, if nobody else has any."""
    others: int
    """Used by others than workers and commands of ours."""
    ours: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LogEnd:
    """The end of a log, and that of the sequence that numbers it."""

    name: LogName
    last: Position
    drawn: Position
    sequence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """All of it."""

    hosts: Sequence[HostSeen]
    session: SessionSeen
    server: ServerSeen
    collation: CollationSeen | None
    limits_ms: Mapping[str, int] | None
    """The server's time-outs by name, as they are for a worker's connections for batches."""
    silenced: Sequence[SilencedSeen] | None
    powers: PowersSeen | None
    open: Sequence[OpenSeen] | None
    slots: Sequence[SlotSeen] | None
    queue: float | None
    """How full the queue of notifications is, from 0 to 1."""
    connections: Sequence[LimitSeen] | None
    per_process: int
    """How many connections a worker's process has at most, unless it is told otherwise."""
    per_process_least: int
    """With how many it can do."""
    handler_timeout_s: float
    schema: SchemaSeen | None
    purpose: str
    """What this user is for, as `grants` calls it."""
    rights: Sequence[Right] | None
    """Those that are missing for that."""
    bell: bool | None
    indexes: Sequence[IndexSeen] | None
    triggers: Sequence[TriggerSeen] | None
    guarded: Sequence[str] | None
    """Tables with row level security."""
    checkpoints: CheckpointsSeen | None
    end: LogEnd | None
    seen: Seen | None
    """What `status` looks at."""
    refusal: str | None
    """Why there is no log that could be looked at."""
    unknown: Sequence[str]
    """What this user may not know."""
    late: Sequence[str]
    """What the server has not told in time."""
    locks: Sequence[TableLock]
    """Who had locked our tables then."""
