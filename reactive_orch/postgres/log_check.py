"""What the log must be, so that reading up to the settled end skips nothing (protocol 2.5).

Guarantees: what breaks a rule is said in one line with what to do. A log that is known not to be what its
checkpoints have read is recorded as another one: it stays refused, whatever is written to it, until they are rewound.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from reactive_orch.errors import MissingRight, Superseded, UnsafeLog
from reactive_orch.model import FrontierKind, Log, LogState
from reactive_orch.postgres.faults import translated
from reactive_orch.postgres.statements import load_statements

if TYPE_CHECKING:
    from collections.abc import Mapping

    from reactive_orch.model import LogName, Position
    from reactive_orch.postgres.connection import AnyConnection

ESTRANGED_NAMED_MAX = 5

_SQL = load_statements(Path(__file__).with_suffix(".sql"))

_FLAWS = {
    "standby": "the server is a standby: the log can only be read on the primary",
    "cache": "sequence {sequence} has CACHE {cache}: positions would not follow the order of writing; "
    "run ALTER SEQUENCE {sequence} CACHE 1, and end the sessions that have appended meanwhile",
    "increment": "sequence {sequence} has INCREMENT {increment}: run ALTER SEQUENCE {sequence} INCREMENT 1",
    "cycle": "sequence {sequence} has CYCLE and would give positions a second time: "
    "run ALTER SEQUENCE {sequence} NO CYCLE",
    "numbering": "{relation}.global_position is not numbered by {sequence}: "
    "it must be an identity column of that sequence",
    "by_default": "{relation}.global_position may be given by the writer: "
    "run ALTER TABLE {relation} ALTER global_position SET GENERATED ALWAYS",
    "kind": "{relation} is not an ordinary table: writers of its parts could not be seen",
    "children": "other tables inherit from {relation}, and their writers cannot be seen: run ALTER TABLE … NO INHERIT",
    "rules": "there are rules on {relation}, which may write elsewhere or draw positions twice: run DROP RULE",
    "subscription": "a subscription of logical replication fills {relation}, behind positions that were read already: "
    "drop it, or take the table out of it, when all rows have arrived and the sequence is beyond them",
    "veiled": "row level security hides events of {relation} from this user, and what is hidden counts as a gap: run "
    "ALTER TABLE {relation} DISABLE ROW LEVEL SECURITY, or give the owner of reactive_orch.event_log BYPASSRLS",
    "source": "reactive_orch.logs does not name an event table with its sequence",
    "view": "the view reactive_orch.event_log does not show {relation} as it is, and what it leaves out counts as a "
    "gap: it must be a plain SELECT of its columns",
    "veiled_table": "row level security hides rows of {veiled_table} from this user: "
    "run ALTER TABLE {veiled_table} DISABLE ROW LEVEL SECURITY, or give the user BYPASSRLS",
    "beyond": "a checkpoint stands at position {checkpoint}, beyond the end of the log at {head}: this database was "
    "restored to an older state, or its sequence was set back; nothing is read. For each projection say from where to "
    "go on: python -m reactive_orch rewind --replica-set NAME --projection NAME --to start|POSITION",
    "differs": "the log is not what it was when it was read: at position {differs_at} there is an event that was not "
    "there, or the log ends before it. Positions were given by hand, drawn in advance or copied from elsewhere, or the "
    "sequence was set back; nothing is read. For each projection say from where to go on: "
    "python -m reactive_orch rewind --replica-set NAME --projection NAME --to start|keep|POSITION",
    "estranged": "the log is not the one that these projections have read{where}: {projections}. It was emptied, "
    "restored to an older state, written where it had been read, or moved to another encoding; nothing is read. For "
    "each of them say from where to go on: "
    "python -m reactive_orch rewind --replica-set NAME --projection NAME --to start|keep|POSITION",
}
"""What to say of each flaw. Those before `source` are found by the view `log_rules`, and `source` by `observe_log`."""


async def logs(connection: AnyConnection) -> list[Log]:
    """Return the logs there are. Raises UnsafeLog when there is none, or one of a kind that is not known here."""
    with translated():
        rows = await connection.fetch(_SQL.logs)
    if not rows:
        msg = "reactive_orch.logs is empty: it must name the event table and its sequence"
        raise UnsafeLog(msg)
    return [_log(dict(row)) for row in rows]


async def examine(connection: AnyConnection, log: LogName) -> tuple[LogState, str | None]:
    """Return the state of a log, and why it may not be read; None when it may.

    Raises UnsafeLog if there is none, MissingRight if this user may not see how far it goes.
    """
    row = await _looked_at(connection, log)
    return _state(row), _complaint(row)


async def check(connection: AnyConnection, log: LogName) -> LogState:
    """Return the state of a log. Raises UnsafeLog when it breaks a rule that the frontier relies on.

    If it is not what its checkpoints have read, that is recorded first.
    """
    row = await _looked_at(connection, log)
    if row["differs_at"] is not None:
        await renew_identity(connection, log)
    complaint = _complaint(row)
    if complaint is not None:
        raise UnsafeLog(complaint)
    return _state(row)


async def renew_identity(connection: AnyConnection, log: LogName) -> None:
    """Record that a log is not what its checkpoints have read, if so: every projection must be rewound then."""
    with translated():
        await connection.execute(_SQL.renew_identity, log)


async def witness(connection: AnyConnection, log: LogName, settled: Position, unless_within_s: float) -> Position:
    """Record what a log is up to a settled position, unless that was done just now: later checks compare with it.

    Returns up to where it is recorded.
    """
    with translated():
        return int(await connection.fetchval(_SQL.witness, log, settled, unless_within_s) or 0)


def of_flaw(flaw: str) -> str:
    """Return what to say of a flaw that was there for a moment and has gone: readers may miss what was written then."""
    return f"the log broke a rule for a moment ({flaw}); start again when it is sure not to break it any more"


async def _looked_at(connection: AnyConnection, log: LogName) -> Mapping[str, Any]:
    with translated():
        row = await connection.fetchrow(_SQL.check, log)
    if row is None:
        msg = f"reactive_orch.logs has no log {log!r}: it must name the event table and its sequence"
        raise UnsafeLog(msg)
    if row["readable"] is None or row["whole"] is None:
        msg = "the log, or the view of it, has just been made anew"  # after the statement had looked up its name
        raise Superseded(msg)
    if row["flaw"] is None and not row["readable"]:
        lacking = f"permission denied for sequence {row['sequence'].rpartition('.')[2]}"
        raise MissingRight(lacking)
    return dict(row)


def _state(row: Mapping[str, Any]) -> LogState:
    return LogState(log=_log(row), head=row["head"], checkpoint=row["checkpoint"])


def _log(row: Mapping[str, Any]) -> Log:
    try:
        return Log(row["name"], row["partitions"], FrontierKind(row["frontier"]))
    except ValueError as error:
        msg = f"log {row['name']!r} has a frontier of a kind that this program does not know: {row['frontier']}"
        raise UnsafeLog(msg) from error


def _complaint(row: Mapping[str, Any]) -> str | None:
    estranged = row["estranged"]
    more = ", …" if len(estranged) > ESTRANGED_NAMED_MAX else ""
    flaws = {
        row["flaw"]: row["flaw"] is not None,
        "view": not row["whole"],
        "veiled_table": row["veiled_table"] is not None,
        "beyond": row["checkpoint"] > row["head"],
        "differs": row["differs_at"] is not None,
        "estranged": bool(estranged),
    }
    where = "" if row["estranged_at"] is None else f", from position {row['estranged_at']} on at the latest"
    words = {**row, "where": where, "projections": ", ".join(estranged[:ESTRANGED_NAMED_MAX]) + more}
    return next((_FLAWS[flaw].format(**words) for flaw, broken in flaws.items() if broken), None)
