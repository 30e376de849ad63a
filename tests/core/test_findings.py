"""From what was seen of a database to what will not work on it."""

from __future__ import annotations

import re
import shlex
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from reactive_orch.core import findings as rules
from reactive_orch.core import remedies
from reactive_orch.core.findings import FORGOTTEN_AFTER_S, findings, holding, is_well, looked_at, schema
from reactive_orch.core.schema_parts import INDEXES, TRIGGERS, UNIQUE_INDEXES
from reactive_orch.model import OWN_LOG, Holder, MemberId, TableLock
from reactive_orch.model.findings import (
    CheckpointsSeen,
    CollationSeen,
    Facts,
    HostSeen,
    IndexSeen,
    LimitSeen,
    LogEnd,
    OpenSeen,
    PowersSeen,
    Right,
    SchemaSeen,
    ServerSeen,
    SessionSeen,
    SilencedSeen,
    SlotSeen,
    TriggerSeen,
)
from reactive_orch.model.overview import GenerationSeen, LogSeen, Seen, WorkerSeen
from tests.core.test_overview import PROJECTION, rest
from tests.core.test_overview import WORKER as WORKING
from tests.core.test_overview import seen as in_use

if TYPE_CHECKING:
    from reactive_orch.model.problems import Problem

SERVER = ServerSeen(
    version=180_004,
    release="18.4",
    standby=False,
    read_only=False,
    database="app",
    user="worker",
    encoding="UTF8",
    ahead_s=0.0,
)
SESSION = SessionSeen(pooled=False, refuses=None, drops=(), hears=True, locks=True)
HOST = HostSeen(url="postgresql://a/app", state="primary", server="1")
LIMITS = dict.fromkeys(("statement_timeout", "lock_timeout", "idle_session_timeout", "transaction_timeout"), 0)
CHECKPOINTS = CheckpointsSeen(live=64, dead=2_000, bytes=1_000_000, autovacuum=True, server_autovacuum=True)
PARTS = [
    *(IndexSeen(name=f"reactive_orch.{n}", definition=f"CREATE UNIQUE INDEX {n} ON reactive_orch.{of}", valid=True)
      for n, of in UNIQUE_INDEXES.items()),
    *(IndexSeen(name=f"reactive_orch.{n}", definition=f"CREATE INDEX {n} ON reactive_orch.{of}", valid=True)
      for n, of in INDEXES.items()),
]  # fmt: skip
FIRING = [TriggerSeen(name=n, table=f"reactive_orch.{of}", fires=True) for n, (of, _) in TRIGGERS.items()]
HOLDER = Holder(pid=7, prepared=None, application="shop", user="ann", age_s=3_600.0, state="idle", query="")
OLD = OpenSeen(holder=HOLDER, here=True, keeps_rows=True)
GENERATION = GenerationSeen(number=1, reason="leave", subjects=(), moved=0, age_s=2 * FORGOTTEN_AFTER_S, complete_s=0.1)
WORKER = WorkerSeen(
    id=MemberId(1),
    replica_set="shop",
    name="vm:12:a1b2c3",
    state="active",
    connected=True,
    stale=False,
    heartbeat_age_s=0.5,
    stale_after_s=9.0,
    lacks=(),
    account=None,
)
LOG = LogSeen(name=OWN_LOG, partitions=4, head=10, holders=(), refusal=None, slowest=None, first_waiting=None)
REFUSED = replace(LOG, refusal="nothing is read")
SEEN = Seen(at=datetime(2026, 11, 29, tzinfo=UTC), logs=[LOG], generations={}, workers=[], projections=[])
END = LogEnd(name=OWN_LOG, last=10, drawn=12, sequence="reactive_orch.events_global_position_seq")
WELL = Facts(
    hosts=[HOST],
    session=SESSION,
    server=SERVER,
    collation=CollationSeen(recorded="2.36", actual="2.36"),
    limits_ms=LIMITS,
    silenced=(),
    powers=PowersSeen(sees_queries=True, ends_sessions=True),
    open=(),
    slots=(),
    queue=0.0,
    connections=[LimitSeen(of="server", most=97, others=5, ours=2)],
    per_process=17,
    per_process_least=6,
    handler_timeout_s=60.0,
    schema=SchemaSeen(complaint=None, migrate_helps=False, step=1, newest=1),
    purpose="worker",
    rights=(),
    bell=True,
    indexes=PARTS,
    triggers=FIRING,
    guarded=(),
    checkpoints=CHECKPOINTS,
    end=END,
    seen=SEEN,
    refusal=None,
    unknown=(),
    late=(),
    locks=(),
)


def told(facts: dict[str, Any]) -> list[Problem]:
    return findings(replace(WELL, **facts))


def codes(**facts: Any) -> list[tuple[str, str]]:
    return [(each.level, each.code) for each in told(facts)]


def test_where_all_is_well_there_is_nothing_to_say() -> None:
    assert findings(WELL) == []
    assert is_well([])
    assert looked_at(WELL).startswith("looked at database app on PostgreSQL 18.4 as worker, schema step 1: ")
    assert "connections (90 are left)" in looked_at(WELL)


def test_what_is_not_known_is_no_finding_but_told() -> None:
    optional: dict[str, Any] = {
        name: None for name in Facts.__dataclass_fields__ if name not in {"hosts", "session", "server"}
    }
    kept: dict[str, Any] = {
        "per_process": 17,
        "per_process_least": 6,
        "handler_timeout_s": 60.0,
        "unknown": ("rights", "indexes"),
        "late": (),
        "locks": (),
    }
    found = told(optional | kept)
    assert [each.code for each in found] == ["not_known"]
    assert found[0].text.endswith(": rights, indexes")
    assert is_well(found)


def test_what_was_not_answered_in_time_is_not_well_and_names_who_is_to_blame() -> None:
    locks = [TableLock(table=f"reactive_orch.{each}", holder=HOLDER) for each in ("events", "event_log")]
    facts = replace(WELL, seen=None, late=("the log",), locks=locks)
    locked, late = findings(facts)
    assert (locked.level, locked.code, locked.who) == ("bad", "locked", str(HOLDER))
    assert "reactive_orch.events, reactive_orch.event_log" in locked.text
    assert "pg_terminate_backend(7)" in locked.command
    assert (late.level, late.code) == ("warn", "no_answer")
    assert not is_well([late])
    assert late.text.endswith("in time: the log")
    assert "replica sets" not in looked_at(facts)
    assert "replica sets" in looked_at(WELL)
    assert findings(replace(WELL, locks=locks)) == [], "somebody has it for a moment, and all was answered"


CASES: list[tuple[dict[str, Any], list[tuple[str, str]]]] = [
    ({"hosts": [HOST, HostSeen(url="b", state="silent", why="refused")]}, [("warn", "host_silent")]),
    ({"hosts": [HOST, HostSeen(url="b", state="standby", server="2")]}, []),
    ({"hosts": [HOST, HostSeen(url="b", state="primary", server="1")]}, []),
    ({"hosts": [HOST, HostSeen(url="b", state="primary", server="2")]}, [("bad", "two_primaries")]),
    ({"server": replace(SERVER, version=140_020)}, [("bad", "version")]),
    ({"server": replace(SERVER, version=160_010)}, [("warn", "minor_version")]),
    ({"server": replace(SERVER, version=160_011)}, []),
    ({"server": replace(SERVER, version=190_000)}, []),
    ({"server": replace(SERVER, standby=True)}, [("bad", "standby")]),
    ({"server": replace(SERVER, read_only=True)}, [("bad", "read_only")]),
    ({"server": replace(SERVER, encoding="LATIN1")}, [("note", "encoding")]),
    ({"server": replace(SERVER, ahead_s=-4.0)}, []),
    ({"server": replace(SERVER, ahead_s=-6.0)}, [("warn", "clocks")]),
    ({"collation": CollationSeen(recorded="2.31", actual="2.36")}, [("warn", "collation")]),
    ({"collation": CollationSeen(recorded=None, actual=None)}, []),
    ({"session": replace(SESSION, pooled=True)}, [("note", "pooler")]),
    ({"session": replace(SESSION, pooled=True, refuses="jit")}, [("bad", "pooler_refuses"), ("note", "pooler")]),
    ({"session": replace(SESSION, drops=("jit",))}, [("bad", "pooler_drops")]),
    ({"session": replace(SESSION, pooled=True, hears=False)}, [("bad", "pooler_transactions")]),
    ({"session": replace(SESSION, locks=False)}, [("bad", "pooler_transactions")]),
    ({"session": replace(SESSION, hears=None, locks=None)}, []),
    ({"limits_ms": LIMITS | {"statement_timeout": 60_000}}, []),
    ({"limits_ms": LIMITS | {"statement_timeout": 59_999}}, [("warn", "time_limit")]),
    ({"limits_ms": LIMITS | {"transaction_timeout": 2_000, "lock_timeout": 1}}, [("warn", "time_limit")] * 2),
    ({"silenced": [SilencedSeen(role=None, database="app")]}, [("bad", "triggers_off")]),
    ({"powers": PowersSeen(sees_queries=False, ends_sessions=True)}, [("note", "see_queries")]),
    ({"powers": PowersSeen(sees_queries=True, ends_sessions=False)}, [("note", "end_sessions")]),
    ({"schema": SchemaSeen(complaint="gone", migrate_helps=True, step=0, newest=1)}, [("bad", "schema")]),
    ({"schema": SchemaSeen(complaint=None, migrate_helps=False, step=2, newest=1)}, [("warn", "schema_newer")]),
    ({"rights": [Right(privileges="SELECT", kind="TABLE", name="events")]}, [("bad", "rights")]),
    ({"bell": False}, [("warn", "bell")]),
    ({"indexes": PARTS[1:]}, [("bad", "index_missing")]),
    ({"triggers": FIRING[1:]}, [("warn", "trigger")]),
    ({"triggers": [replace(FIRING[-1], fires=False), *FIRING[:-1]]}, [("bad", "trigger")]),
    ({"guarded": ("reactive_orch.members",)}, [("note", "row_security")]),
    ({"end": replace(END, last=13)}, [("bad", "planted")]),
    ({"open": [OLD]}, [("warn", "old_snapshot")]),
    ({"open": [replace(OLD, here=False)]}, []),
    ({"open": [replace(OLD, keeps_rows=False)]}, []),
    ({"open": [replace(OLD, holder=replace(HOLDER, age_s=holding.ROWS_KEPT_AFTER_S))]}, []),
    ({"open": [replace(OLD, holder=replace(HOLDER, pid=None, prepared="x"))]}, [("warn", "prepared")]),
    ({"open": [OLD], "seen": replace(SEEN, logs=[replace(LOG, holders=[HOLDER])])}, [("bad", "log_held")]),
    ({"slots": [SlotSeen(name="s", active=False, transactions=holding.ROWS_KEPT_FOR)]}, []),
    ({"slots": [SlotSeen(name="s", active=False, transactions=2_000_000)]}, [("warn", "old_slot")]),
    ({"queue": 0.09}, []),
    ({"queue": 0.1, "open": [replace(OLD, here=False)]}, [("warn", "notify_queue")]),
    ({"queue": 0.5}, [("bad", "notify_queue")]),
    ({"checkpoints": replace(CHECKPOINTS, autovacuum=False)}, [("warn", "autovacuum")]),
    ({"checkpoints": replace(CHECKPOINTS, server_autovacuum=False)}, [("warn", "autovacuum")]),
    ({"checkpoints": replace(CHECKPOINTS, dead=schema.DEAD_ROWS + 1)}, [("warn", "bloat")]),
    ({"checkpoints": replace(CHECKPOINTS, dead=schema.DEAD_ROWS + 1, live=64_000)}, []),
    ({"checkpoints": replace(CHECKPOINTS, bytes=schema.BYTES_ALWAYS_WELL + 1)}, [("warn", "bloat")]),
    ({"seen": None, "refusal": "no log"}, [("bad", "log_refused")]),
    ({"server": replace(SERVER, standby=True), "seen": replace(SEEN, logs=[REFUSED])}, [("bad", "standby")]),
    ({"seen": replace(SEEN, logs=[REFUSED])}, [("bad", "log_refused")]),
    ({"seen": in_use(None)}, [("bad", "no_workers")]),
    ({"seen": in_use(None, replace(PROJECTION, oldest_s=None))}, []),
    ({"seen": in_use(projection=replace(PROJECTION, rest=rest("halted")))}, [("bad", "halted")]),
    ({"seen": in_use(replace(WORKING, heartbeat_age_s=50.0))}, [("bad", "stands_still")]),
]


@pytest.mark.parametrize(("facts", "found"), CASES)
def test_each_fact_has_its_finding(facts: dict[str, Any], found: list[tuple[str, str]]) -> None:
    assert codes(**facts) == found


def test_an_index_is_known_by_what_it_is_of_and_not_by_its_name() -> None:
    last = PARTS[-1]
    renamed = replace(last, name="other", definition=last.definition.replace(" INDEX ", " INDEX re_", 1))
    assert codes(indexes=[*PARTS[:-1], renamed]) == []
    (left_over,) = findings(replace(WELL, indexes=[*PARTS, replace(renamed, valid=False)]))
    assert left_over.command == remedies.psql("DROP INDEX CONCURRENTLY other")
    (broken,) = findings(replace(WELL, indexes=[*PARTS[:-1], replace(renamed, valid=False)]))
    assert broken.command == remedies.psql("REINDEX INDEX CONCURRENTLY other")


@pytest.mark.parametrize(
    ("role", "database", "statement"),
    [
        ("ann", "app", 'ALTER ROLE "ann" IN DATABASE "app" RESET session_replication_role'),
        ("ann", None, 'ALTER ROLE "ann" RESET session_replication_role'),
        (None, "app", 'ALTER DATABASE "app" RESET session_replication_role'),
        (None, None, "ALTER SYSTEM SET session_replication_role = origin"),
    ],
)
def test_triggers_are_switched_on_where_they_were_switched_off(
    role: str | None, database: str | None, statement: str
) -> None:
    (found,) = findings(replace(WELL, silenced=[SilencedSeen(role=role, database=database)]))
    assert shlex.split(found.command)[3] == statement


def _limited(most: int, others: int, *names: str) -> list[tuple[str, str]]:
    workers = [replace(WORKER, name=name) for name in names]
    limit = LimitSeen(of="role", most=most, others=others, ours=0)
    return codes(connections=[limit], seen=replace(SEEN, workers=workers))


def test_connections_are_counted_by_process_and_without_those_of_others() -> None:
    assert _limited(17, 0) == []
    assert _limited(17, 1) == [("warn", "connections")]
    assert _limited(17, 0, "a", "a") == [], "two workers of one process share its connections"
    assert _limited(17, 0, "a", "b") == [("warn", "connections")]
    assert _limited(11, 0, "a", "b") == [("bad", "connections")]


def test_a_replica_set_is_forgotten_when_nobody_has_lived_for_long() -> None:
    generations: dict[str, GenerationSeen | None] = {"old shop": GENERATION}
    gone = replace(WORKER, replica_set="old shop", connected=False, stale=True)
    (found,) = findings(replace(WELL, seen=replace(SEEN, generations=generations)))
    assert (found.code, found.command) == (
        *("forgotten",),
        "python -m reactive_orch replica-sets remove --replica-set 'old shop'",
    )
    assert "no worker for 14 days" in found.text
    for worker in (replace(gone, connected=True), replace(gone, heartbeat_age_s=60.0)):
        assert codes(seen=replace(SEEN, generations=generations, workers=[worker])) == []
    long_gone = replace(gone, heartbeat_age_s=FORGOTTEN_AFTER_S + 1)
    assert codes(seen=replace(SEEN, generations=generations, workers=[long_gone])) == [("warn", "forgotten")]


def test_commands_are_quoted_for_the_shell_and_for_sql() -> None:
    prepared = replace(HOLDER, pid=None, prepared="it's")
    (found,) = findings(replace(WELL, open=[replace(OLD, holder=prepared)]))
    assert shlex.split(found.command) == ["psql", "$DATABASE_URL", "-c", "ROLLBACK PREPARED 'it''s'"]
    (found,) = findings(replace(WELL, server=replace(SERVER, user='a"b', database="it's", read_only=True)))
    assert shlex.split(found.command)[3::2] == [
        "SET default_transaction_read_only = off",
        'ALTER ROLE "a""b" IN DATABASE "it\'s" SET default_transaction_read_only = off',
    ]
    assert remedies.ours("trace", replica_set="-x y") == "python -m reactive_orch trace --replica-set='-x y'"


def test_the_page_has_every_code() -> None:
    page = (Path(__file__).parents[2] / "docs" / "operations.md").read_text(encoding="utf-8")
    chapter = page.partition("## What `doctor` finds")[2].partition("\n## ")[0]
    rows = [line.split("|")[1] for line in chapter.splitlines() if line.startswith("| `")]
    sources = (Path(rules.__file__).parent).glob("*.py")
    made = {
        code for path in sources for code in re.findall(r'finding\(\s*(?:"\w+"|level),\s*"(\w+)"', path.read_text())
    }
    indirect = {"prepared", "old_snapshot", "notify_queue", "trigger"}
    assert set(re.findall(r"`(\w+)`", "".join(rows))) == made | indirect | rules.OF_STATUS
