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
    awaiting     handled: wait until what was appended is, for any connection
    typed        objects of an application's classes instead of events
    migrating    the schema, for an application that has no shell
    dead_letters failing keys, for any connection
    sqlalchemy   its sessions, in the transaction of a handler
    looking      how it all stands, seen from outside again and again: for `watch` and the page
    runtime      where they meet: Worker is what an application holds, Node what a process has once; between them
                 membership (turns, adoptions, the session), handling (runners, lanes, groups,
                 batches, failing keys) and reading (the follower of the log, windows)
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
    from reactive_orch.awaiting import handled
    from reactive_orch.config import Config
    from reactive_orch.errors import (
        ConfigError,
        Conflict,
        NotHandled,
        ProjectionFailed,
        ReactiveOrchError,
        Standby,
        Superseded,
        Unavailable,
        Undecodable,
        UnsafeLog,
    )
    from reactive_orch.migrating import migrate
    from reactive_orch.model import (
        Event,
        Expected,
        Filter,
        Handler,
        Hooks,
        Middleware,
        NewEvent,
        Projection,
        projection,
        subject,
    )
    from reactive_orch.postgres.blocking import BlockingConnection
    from reactive_orch.postgres.log import read_stream
    from reactive_orch.process.running import running
    from reactive_orch.runtime.node import Node
    from reactive_orch.runtime.worker import Worker
    from reactive_orch.typed import EventTypes

__all__ = [
    "BlockingConnection",
    "Config",
    "ConfigError",
    "Conflict",
    "Event",
    "EventTypes",
    "Expected",
    "Filter",
    "Handler",
    "Hooks",
    "Middleware",
    "NewEvent",
    "Node",
    "NotHandled",
    "Projection",
    "ProjectionFailed",
    "ReactiveOrchError",
    "Standby",
    "Superseded",
    "Unavailable",
    "Undecodable",
    "UnsafeLog",
    "Worker",
    "append",
    "handled",
    "migrate",
    "projection",
    "read_stream",
    "running",
    "subject",
]

_WHERE = {
    "appending": ("append",),
    "awaiting": ("handled",),
    "config": ("Config",),
    "errors": (
        *("ConfigError", "Conflict", "NotHandled", "ProjectionFailed", "ReactiveOrchError"),
        *("Standby", "Superseded", "Unavailable", "Undecodable", "UnsafeLog"),
    ),
    "migrating": ("migrate",),
    "model": (
        *("Event", "Expected", "Filter", "Handler", "Hooks", "Middleware"),
        *("NewEvent", "Projection", "projection", "subject"),
    ),
    "postgres.blocking": ("BlockingConnection",),
    "postgres.log": ("read_stream",),
    "process.running": ("running",),
    "runtime.node": ("Node",),
    "runtime.worker": ("Worker",),
    "typed": ("EventTypes",),
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

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
