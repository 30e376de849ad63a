"""Projections of an event log in PostgreSQL, divided among any number of worker processes.

    writers ──INSERT──▶ reactive_orch.events ──NOTIFY──▶ every worker process
                             │ positions, 64 partitions by key                  ▲
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

Safety and its reasons are in `docs/protocol.md`; the decisions behind it in `docs/decisions/`.

Rooms, from the bottom; imports go down only, and contracts in the checks say so:

    errors, incarnation, json_text, model      the words
    config, address, embedded                  how a process runs, where its database is, a server for trying out
    core         decides: no I/O, no clock; a decision is a value
    postgres     performs in SQL, decides nothing           } these three
    telemetry    watches: spans, metrics, lines             } never meet
    appending    append, for any connection
    dead_letters failing keys, for any connection
    looking      how it all stands, seen from outside again and again: for `watch` and the page
    runtime      where they meet: Worker is what an application holds, Node what a process has once; between them
                 membership (turns, adoptions, the session), handling (runners, lanes, batches,
                 failing keys) and reading (the follower of the log, windows)
    http         health, metrics, and the page for people
    testing      for tests of projections: a fixture of pytest, a database for each test, handlers alone
    process      how a process speaks and ends
    commands     a module each; run is the worker. cli chooses one, and is the only reader of the environment

What happens leaves the runtime as a report (`model.reports`), told to observers; how it stands, as a status
(`model.status`), for whoever asks. Telemetry makes both into what can be seen. With each heartbeat a worker's status
goes into its member's row as its account (`model.account`); of all accounts, and what else the tables say,
`core.overview` and `core.problems` make what the commands `status` and `watch` show, `core.page` what the page does,
and `core.findings`, of the server and the schema too, what `doctor` says. What can be wrong has its words once, in
`model.problems`. Nothing works by any of it.

Each module's docstring says what it guarantees.
"""

from __future__ import annotations

from importlib import import_module

TYPE_CHECKING = False  # as type checkers know it; `typing` takes as long to import as all else here
if TYPE_CHECKING:
    from reactive_orch.appending import append
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

_WHERE = {
    "appending": ("append",),
    "config": ("Config",),
    "errors": (
        *("ConfigError", "Conflict", "ProjectionFailed", "ReactiveOrchError"),
        *("Standby", "Superseded", "Unavailable", "UnsafeLog"),
    ),
    "model": ("Event", "Expected", "Filter", "NewEvent", "Projection", "projection"),
    "postgres.log": ("read_stream",),
    "runtime.node": ("Node",),
    "runtime.worker": ("Worker",),
}
"""Module → its names, imported when asked for: applications that append start sooner without what runs workers, and the
command line heeds Ctrl-C before it imports anything that takes long."""

if not TYPE_CHECKING:  # else type checkers would believe that every name exists

    def __getattr__(name: str) -> object:
        module = next((module for module, names in _WHERE.items() if name in names), None)
        if module is None:
            msg = f"module {__name__!r} has no attribute {name!r}"
            raise AttributeError(msg)
        globals()[name] = value = getattr(import_module(f"{__name__}.{module}"), name)
        return value
