"""What is wrong with our schema, with the rights to it, or with the state of its tables."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from reactive_orch.core.findings.made import finding
from reactive_orch.core.remedies import call, identifier, ours, piped, psql
from reactive_orch.core.schema_parts import INDEXES, TRIGGERS, UNIQUE_INDEXES

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from reactive_orch.model.findings import Facts, IndexSeen, SilencedSeen, TriggerSeen
    from reactive_orch.model.problems import Level, Problem

NAMED_MAX = 4
"""How many missing rights fit a line."""
DEAD_ROWS = 20_000
"""Ten times as many as autovacuum lets the checkpoints have."""
BYTES_PER_ROW, BYTES_ALWAYS_WELL = 4_000, 64 * 2**20
"""A row of the checkpoints has some 200 bytes, and the table is to be half empty: more than that is bloat."""

_SCHEMA = "reactive_orch."

_WITHOUT: dict[str, tuple[Level, str]] = {
    "ring": ("warn", "nobody rings, and workers poll"),
    "truncated": ("bad", "a log that is emptied and filled again would be read on where the old one ended"),
    "batch_is_sealed": ("bad", "a handler that commits by itself would lose the rest of its batch"),
}


def of_schema(facts: Facts) -> Iterator[Problem]:
    """Yield why this program and the schema do not fit."""
    schema = facts.schema
    if schema is None:
        return
    if schema.complaint is not None:
        yield finding("bad", "schema", schema.complaint, command=ours("migrate") if schema.migrate_helps else "")
    elif schema.step > schema.newest:
        text = (
            f"the schema is at step {schema.step}, and this program knows those up to {schema.newest}: a newer release "
            "has migrated it. Run that one here, too"
        )
        yield finding("warn", "schema_newer", text)


def of_rights(facts: Facts) -> Iterator[Problem]:
    """Yield what this role may not do."""
    user = facts.server.user
    if facts.rights:
        lacks = [f"{each.kind.lower()} {each.name} ({each.privileges})" for each in facts.rights]
        more = f" and {len(lacks) - NAMED_MAX} more" if len(lacks) > NAMED_MAX else ""
        who = f"{'an' if facts.purpose[0] in 'ao' else 'a'} {facts.purpose}"
        text = f"{user} lacks rights that {who} needs: {', '.join(lacks[:NAMED_MAX])}{more}; the owner gives them by"
        yield finding("bad", "rights", text, command=piped(ours("grants", role=user, **{"for": facts.purpose})))
    if facts.powers is not None and not facts.powers.sees_queries:
        text = f"{user} may not see what other roles' sessions do: for how long one of them holds the log is not known"
        yield finding("note", "see_queries", text, command=psql(f"GRANT pg_read_all_stats TO {identifier(user)}"))
    if facts.powers is not None and not facts.powers.ends_sessions:
        text = (
            f"{user} may not end the sessions of all workers, as some log in as another role: what a frozen one holds "
            "is free only when its time-outs have passed"
        )
        yield finding("note", "end_sessions", text, command=psql(f"GRANT pg_signal_backend TO {identifier(user)}"))
    if facts.guarded:
        text = (
            f"row level security is on for {', '.join(facts.guarded)}: what it hides from other roles than {user} is "
            "not known. Run this as the workers' role"
        )
        yield finding("note", "row_security", text)


def of_parts(facts: Facts) -> Iterator[Problem]:
    """Yield what is missing of the schema, or does nothing."""
    if facts.bell is False:
        text = "the sequence reactive_orch.bell is missing: nobody rings, and workers poll"
        yield finding("warn", "bell", text, command=ours("migrate"))
    if facts.indexes is not None:
        yield from _of_indexes(facts.indexes)
    if facts.triggers is not None:
        yield from _of_triggers(facts.triggers)
    yield from map(_silenced, facts.silenced or ())


def _of_indexes(seen: Sequence[IndexSeen]) -> Iterator[Problem]:
    valid = {_shape(each.definition) for each in seen if each.valid}
    broken = {_shape(each.definition): each for each in seen if not each.valid}
    for name, shape in (UNIQUE_INDEXES | INDEXES).items():
        if shape not in valid and shape not in broken:
            kind = "UNIQUE INDEX" if name in UNIQUE_INDEXES else "INDEX"
            text = f"index {name} of reactive_orch is missing: statements read whole tables, or fail"
            command = psql(f"CREATE {kind} CONCURRENTLY {name} ON {_SCHEMA}{shape}")
            yield finding("bad", "index_missing", text, command=command)
    for shape, each in broken.items():
        text = f"index {each.name} is invalid: it was not made to its end, costs every writer, and serves nobody"
        what = "DROP" if shape in valid else "REINDEX"
        yield finding("warn", "index_invalid", text, command=psql(f"{what} INDEX CONCURRENTLY {each.name}"))


def _shape(definition: str) -> str:
    """Return what an index is of, and how, without its name and storage parameters."""
    shape = re.sub(r"^CREATE (UNIQUE )?INDEX \S+ ON (ONLY )?", "", definition)
    return re.sub(r"\sWITH \([^)]*\)", "", shape).removeprefix(_SCHEMA)


def _of_triggers(seen: Sequence[TriggerSeen]) -> Iterator[Problem]:
    there = {(each.table.removeprefix(_SCHEMA), each.name): each for each in seen}
    for name, (table, definition) in TRIGGERS.items():
        trigger = there.get((table, name))
        if trigger is not None and trigger.fires:
            continue
        state, command = "missing", ours("migrate") if name == "ring" else psql(definition)
        if trigger is not None:
            state, command = "disabled", psql(f"ALTER TABLE {_SCHEMA}{table} ENABLE TRIGGER {name}")
        level, does = _WITHOUT[name]
        yield finding(level, "trigger", f"trigger {name} of {_SCHEMA}{table} is {state}: {does}", command=command)


def _silenced(each: SilencedSeen) -> Problem:
    whose = f"role {each.role}" if each.role else "every role"
    lost = "; ".join(does for _, does in _WITHOUT.values())
    text = f"triggers do not fire for {whose} (session_replication_role = replica): {lost}"
    where = f" IN DATABASE {identifier(each.database)}" if each.database and each.role else ""
    if each.role:
        commands = [f"ALTER ROLE {identifier(each.role)}{where} RESET session_replication_role"]
    elif each.database:
        commands = [f"ALTER DATABASE {identifier(each.database)} RESET session_replication_role"]
    else:
        commands = ["ALTER SYSTEM SET session_replication_role = origin", call("pg_reload_conf()")]
    return finding("bad", "triggers_off", text, command=psql(*commands))


def of_checkpoints(facts: Facts) -> Iterator[Problem]:
    """Yield why each batch takes longer to find its checkpoints."""
    table = facts.checkpoints
    if table is None:
        return
    if not table.server_autovacuum:
        text = "autovacuum is off on this server: the checkpoints, updated with every batch, grow without end"
        yield finding(
            "warn", "autovacuum", text, command=psql("ALTER SYSTEM SET autovacuum = on", call("pg_reload_conf()"))
        )
    elif not table.autovacuum:
        text = (
            "autovacuum is off for reactive_orch.checkpoints, which is updated with every batch: it grows without end"
        )
        command = psql(f"ALTER TABLE {_SCHEMA}checkpoints RESET (autovacuum_enabled)")
        yield finding("warn", "autovacuum", text, command=command)
    if table.dead > max(DEAD_ROWS, 10 * table.live):
        text = f"reactive_orch.checkpoints has {table.dead} dead rows beside {table.live}: nobody vacuums it, or cannot"
        yield finding("warn", "bloat", text, command=psql(f"VACUUM {_SCHEMA}checkpoints"))
    elif table.bytes > max(BYTES_ALWAYS_WELL, BYTES_PER_ROW * table.live):
        text = (
            f"reactive_orch.checkpoints takes {table.bytes // 2**20} MB for {table.live} rows: make it anew, for which "
            "batches wait a moment"
        )
        yield finding("warn", "bloat", text, command=psql(f"VACUUM FULL {_SCHEMA}checkpoints"))
