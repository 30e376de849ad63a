"""Projections of an event log in PostgreSQL, divided among any number of worker processes.

    writers ──INSERT──▶ reactive_orch.events ──NOTIFY──▶ every worker process
                             │ positions, 64 partitions by aggregate            ▲
                             ▼                                                  │ LISTEN
    batch   frontier ─▶ window ─▶ BEGIN  swap  handle …  seal+COMMIT            │
            how far may     what next    │ checkpoints: position = expected     │
            be read         for my       │ and epoch = expected, else roll back │
                            partitions   ▼                                      │
                                     one transaction with the handler's effects │
    turn    observe ─▶ decide ─▶ change generation n → n+1, in one statement ───┘
            members,   pure      (join, leave, death, stale, capability)
            owners               then drop, take, acknowledge n+1

Safety is the swap, and nothing else: whoever is right about who is a member or who owns what, two workers cannot both
commit a batch of one partition, and none can be skipped. Membership, locks, heartbeats and NOTIFY only make it fast.
And no event is skipped because the frontier never passes a position whose writer may still commit.

Rooms, from the bottom: `errors`, `incarnation`, `json_text` and `model` (the words); `config`, `address` (where the
database is) and `lines` (events as text); then `core` (decides, no I/O), `postgres` (performs, decides nothing) and
`telemetry`, which never see each other; `runtime` (where they meet: Node, Worker, Runner, Lane), `http` and
`waterfall`; `commands`, `demo`, `streams` (standard streams as they are found), `abandonable` (calls that may be given
up), `explaining` (what is said of an error) and `last_resort` (an end that waits for nobody); `cli` on top. Imports go
down only; a contract in the checks says so. Each module's docstring says what it guarantees.
"""

from reactive_orch.config import Config
from reactive_orch.errors import (
    ConfigError,
    Conflict,
    ProjectionFailed,
    ReactiveOrchError,
    Standby,
    Superseded,
    Unavailable,
    UnsafeLog,
)
from reactive_orch.model import Event, Expected, Filter, NewEvent, Projection, projection
from reactive_orch.postgres.log import read_stream
from reactive_orch.runtime.append import append
from reactive_orch.runtime.node import Node
from reactive_orch.runtime.worker import Worker

__all__ = [
    "Config",
    "ConfigError",
    "Conflict",
    "Event",
    "Expected",
    "Filter",
    "NewEvent",
    "Node",
    "Projection",
    "ProjectionFailed",
    "ReactiveOrchError",
    "Standby",
    "Superseded",
    "Unavailable",
    "UnsafeLog",
    "Worker",
    "append",
    "projection",
    "read_stream",
]
