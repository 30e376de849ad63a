"""`doctor`: each thing that will not work is caused, found, and gone after the command that is said to help."""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import shlex
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple, get_args

import asyncpg
import pytest

from integration_test.harness import pgbouncer
from integration_test.harness.checkers import wait_settled
from integration_test.harness.cluster import Cluster, Standby
from integration_test.harness.command_line import CONFIG, FAILED, UNREACHABLE, run
from integration_test.harness.connections import as_role, connected
from integration_test.harness.in_process import serving
from integration_test.harness.waiting import wait_until
from reactive_orch import Config, ConfigError, Event
from reactive_orch import projection as make_projection
from reactive_orch.commands.doctor import DOCTOR
from reactive_orch.core import problems
from reactive_orch.core.findings import holding, schema, server
from reactive_orch.core.schema_parts import INDEXES, TRIGGERS, UNIQUE_INDEXES
from reactive_orch.postgres import doctor, doctor_hosts, migrations
from reactive_orch.postgres.grants import Purpose, grants

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from integration_test.harness.connections import Connection

OURS = "python -m reactive_orch"
PURPOSES = get_args(Purpose)


class Told(NamedTuple):
    """What `doctor --json` says."""

    findings: list[dict[str, Any]]

    @property
    def codes(self) -> list[str]:
        return [each["code"] for each in self.findings]

    def one(self, code: str) -> dict[str, Any]:
        found = [each for each in self.findings if each["code"] == code]
        assert len(found) == 1, self
        return found[0]


async def told(url: str, replica_set: str | None = None, purpose: Purpose = "worker") -> Told:
    out, code = io.StringIO(), 0
    with contextlib.redirect_stdout(out):
        try:
            await DOCTOR.run(argparse.Namespace(replica_set=replica_set, purpose=purpose, json=True), url)
        except SystemExit as ended:
            code = int(ended.code or 0)
    findings = json.loads(out.getvalue())["findings"]
    assert code == (FAILED if any(each["level"] != "note" for each in findings) else 0)
    return Told(findings)


async def help_by(finding: dict[str, Any], owner: Connection) -> None:
    """Do what the finding's command does."""
    if finding["command"].startswith(f"{OURS} migrate"):
        await migrations.migrate(owner)
        return
    if " grants " in finding["command"]:
        ours, _, rest = finding["command"].partition(" | ")
        words = shlex.split(ours)
        purpose = words[-1]
        assert (words[-2], purpose in PURPOSES, rest) == ("--for", True, 'psql "$DATABASE_URL"')
        await owner.execute(grants(words[words.index("--role") + 1], purpose))  # type: ignore[arg-type]
        return
    psql, address, *words = shlex.split(finding["command"])
    assert (psql, address) == ("psql", "$DATABASE_URL")
    for option, statement in zip(words[::2], words[1::2], strict=True):
        assert option == "-c"
        await owner.execute(statement)


class Cause(NamedTuple):
    """What somebody does to a database, and what is said of it."""

    statements: str
    code: str
    level: str
    words: str
    helps: bool = True
    """Its command makes it go away."""


EVENT = (
    "INSERT INTO reactive_orch.events (global_position, aggregate_type, aggregate_id, aggregate_version, event_type) "
    "OVERRIDING SYSTEM VALUE VALUES (1000, 'Key', '1', 1, 'Written')"
)
SUBSCRIPTION = """
CREATE SUBSCRIPTION doctored CONNECTION '' PUBLICATION nothing WITH (connect = false);
INSERT INTO pg_subscription_rel (srsubid, srrelid, srsubstate)
SELECT s.oid, 'reactive_orch.events'::regclass, 'r' FROM pg_subscription s WHERE s.subname = 'doctored';
"""

CAUSES = [
    Cause("DROP INDEX reactive_orch.events_partition_position", "index_missing", "bad", "events_partition_position"),
    Cause("DROP INDEX reactive_orch.failing_keys_due", "index_missing", "bad", "failing_keys_due"),
    Cause("ALTER TABLE reactive_orch.markers DROP CONSTRAINT markers_pkey", "index_missing", "bad", "markers_pkey"),
    Cause(
        "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'reactive_orch.members_replica_set'::regclass",
        *("index_invalid", "warn", "members_replica_set"),
    ),
    Cause("DROP TRIGGER ring ON reactive_orch.events", "trigger", "warn", "ring of reactive_orch.events is missing"),
    Cause("DROP TRIGGER truncated ON reactive_orch.events", "trigger", "bad", "truncated"),
    Cause("DROP TRIGGER batch_is_sealed ON reactive_orch.checkpoints", "trigger", "bad", "batch_is_sealed"),
    Cause("ALTER TABLE reactive_orch.events DISABLE TRIGGER truncated", "trigger", "bad", "is disabled"),
    Cause("DROP SEQUENCE reactive_orch.bell", "bell", "warn", "nobody rings"),
    Cause("ALTER DATABASE {db} SET session_replication_role = replica", "triggers_off", "bad", "for every role"),
    Cause(
        "ALTER ROLE postgres IN DATABASE {db} SET session_replication_role = replica",
        *("triggers_off", "bad", "for role postgres"),
    ),
    Cause("ALTER DATABASE {db} SET default_transaction_read_only = on", "read_only", "bad", "read-only"),
    Cause(
        "ALTER DATABASE {db} SET statement_timeout = '25s'",
        "time_limit",
        "warn",
        "25 s (statement_timeout of postgres)",
    ),
    Cause("ALTER DATABASE {db} SET lock_timeout = '1s'", "time_limit", "warn", "1 s (lock_timeout of postgres)"),
    Cause(EVENT, "planted", "bad", "position 1000"),
    Cause(
        "ALTER TABLE reactive_orch.checkpoints SET (autovacuum_enabled = off)",
        "autovacuum",
        "warn",
        "grows without end",
    ),
    Cause(
        "ALTER TABLE reactive_orch.members ENABLE ROW LEVEL SECURITY",
        *("row_security", "note", "reactive_orch.members"),
        helps=False,
    ),
    Cause(
        "UPDATE pg_database SET datcollversion = '2.31' WHERE datname = current_database()",
        *("collation", "warn", "2.31"),
        helps=False,  # the tests' databases have no collation that could have a version
    ),
    Cause(
        "ALTER SEQUENCE reactive_orch.events_global_position_seq CACHE 20",
        *("log_refused", "bad", "CACHE 20"),
        helps=False,
    ),
    Cause(SUBSCRIPTION, "log_refused", "bad", "a subscription of logical replication", helps=False),
    Cause("INSERT INTO reactive_orch.schema_steps VALUES (99, 'x')", "schema_newer", "warn", "step 99", helps=False),
    Cause(
        "UPDATE reactive_orch.schema_steps SET digest = 'x'", "schema", "bad", "not that of this program", helps=False
    ),
]


@pytest.mark.parametrize("cause", CAUSES, ids=lambda cause: f"{cause.code}-{cause.words}")
async def test_what_is_caused_is_found_and_helped(database: str, cause: Cause) -> None:
    async with connected(database) as owner, without_subscriptions(owner):
        await owner.execute(cause.statements.format(db=await owner.fetchval("SELECT current_database()")))
        found = (await told(database)).one(cause.code)
        assert (found["level"], cause.words in found["text"]) == (cause.level, True), found
        if cause.helps:
            await help_by(found, owner)
            assert (await told(database)).codes == []


@contextlib.asynccontextmanager
async def without_subscriptions(owner: Connection) -> AsyncIterator[None]:
    """Drop at the end what would keep the database from being dropped."""
    try:
        yield
    finally:
        if await owner.fetchval("SELECT count(*) FROM pg_subscription WHERE subname = 'doctored'"):
            await owner.execute("ALTER SUBSCRIPTION doctored SET (slot_name = NONE); DROP SUBSCRIPTION doctored")


async def test_settings_of_the_database_change_nothing_that_is_seen(database: str) -> None:
    async with connected(database) as owner:
        name = await owner.fetchval("SELECT current_database()")
        for setting in ("quote_all_identifiers = on", "search_path = reactive_orch, public"):
            await owner.execute(f"ALTER DATABASE {name} SET {setting}")
    assert (await told(database)).codes == []
    (await run("status", DATABASE_URL=database)).done()


async def test_the_parts_it_looks_for_are_those_that_migrate_makes(database: str) -> None:
    async with connected(database) as connection:
        there = await connection.fetch(
            "SELECT pg_get_indexdef(i.indexrelid) FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid "
            "WHERE c.relnamespace = 'reactive_orch'::regnamespace"
        )
        made = await connection.fetch(
            "SELECT t.tgname::text, c.relname::text, pg_get_triggerdef(t.oid) FROM pg_trigger t "
            "JOIN pg_class c ON c.oid = t.tgrelid WHERE NOT t.tgisinternal"
        )
    named = {f"CREATE UNIQUE INDEX {name} ON reactive_orch.{of}" for name, of in UNIQUE_INDEXES.items()}
    named |= {f"CREATE INDEX {name} ON reactive_orch.{of}" for name, of in INDEXES.items()}
    assert {row[0].replace(" WITH (autosummarize='on')", "") for row in there} == named
    assert {row[0]: (row[1], row[2]) for row in made} == TRIGGERS


async def test_a_database_without_our_schema_is_to_be_migrated(empty_database: str) -> None:
    found = (await told(empty_database)).one("schema")
    assert (found["level"], found["command"]) == ("bad", f"{OURS} migrate")
    async with connected(empty_database) as owner:
        await help_by(found, owner)
    assert (await told(empty_database)).findings == []


async def test_another_encoding_than_utf8_is_told(cluster: Cluster) -> None:
    url = cluster.create_database("latin", "--template=template0", "--encoding=LATIN1", "--locale=C")
    try:
        assert (await told(url)).one("encoding")["level"] == "note"
    finally:
        cluster.drop_database("latin")


@contextlib.asynccontextmanager
async def in_transaction(url: str, *statements: str, isolation: str = "read committed") -> AsyncIterator[Connection]:
    """Leave a transaction open for the block; the finding's command may end it."""
    connection = await asyncpg.connect(url, server_settings={"application_name": "forgotten"})
    try:
        await connection.execute(f"BEGIN ISOLATION LEVEL {isolation}")
        for statement in statements:
            await connection.execute(statement)
        yield connection
    finally:
        connection.terminate()


async def gone(url: str, code: str) -> bool:
    return code not in (await told(url)).codes


OPEN = {
    "log_held": (
        (
            "INSERT INTO reactive_orch.events (aggregate_type, aggregate_id, aggregate_version, event_type) "
            "VALUES ('Key', '1', 1, 'Written')"
        ),
        "bad",
    ),
    "old_snapshot": ("SELECT 1", "warn"),
}


@pytest.mark.parametrize("code", OPEN)
async def test_who_has_forgotten_a_transaction_is_named_and_ended(
    database: str, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    monkeypatch.setattr(problems, "HELD_AFTER_S", 0.0)
    monkeypatch.setattr(holding, "ROWS_KEPT_AFTER_S", 0.0)
    statement, level = OPEN[code]
    async with connected(database) as owner, in_transaction(database, statement, isolation="repeatable read") as holder:
        found = await told(database)
        assert found.codes == [code], "told once"
        (one,) = found.findings
        assert (one["level"], one["since"] is not None) == (level, True)
        assert f"pid {holder.get_server_pid()} of postgres (forgotten)" in one["who"]
        await help_by(one, owner)
        await wait_until(lambda: gone(database, code))


@pytest.mark.parametrize("holds_log", [False, True])
async def test_a_forgotten_prepared_transaction_is_named_and_taken_back(
    database: str, monkeypatch: pytest.MonkeyPatch, *, holds_log: bool
) -> None:
    monkeypatch.setattr(problems, "HELD_AFTER_S", 0.0)
    monkeypatch.setattr(holding, "PREPARED_AFTER_S", 0.0)
    code, statement = ("log_held", OPEN["log_held"][0]) if holds_log else ("prepared", "CREATE TABLE kept ()")
    async with connected(database) as owner:
        await owner.execute("ALTER TABLE reactive_orch.events DISABLE TRIGGER ring")  # else it cannot be prepared
        await owner.execute(f"BEGIN; {statement}; PREPARE TRANSACTION 'the doctor''s'")
        await owner.execute("ALTER TABLE reactive_orch.events ENABLE TRIGGER ring") if not holds_log else None
        found = (await told(database)).one(code)
        assert 'prepared transaction "the doctor\'s"' in found["who"]
        await help_by(found, owner)
        assert await gone(database, code)


@pytest.mark.parametrize("table", ["events", "checkpoints", "members", "projections", "logs", "schema_steps"])
async def test_who_has_locked_a_table_is_named_and_ended(
    database: str, monkeypatch: pytest.MonkeyPatch, table: str
) -> None:
    monkeypatch.setattr(doctor, "BOUND", doctor_hosts.BOUND.replace("'2s'", "'100ms'"))
    lock = f"LOCK TABLE reactive_orch.{table} IN ACCESS EXCLUSIVE MODE"
    async with connected(database) as owner, in_transaction(database, lock) as locker:
        found = await told(database)
        assert f"reactive_orch.{table}" in found.one("locked")["text"]
        assert f"pid {locker.get_server_pid()} of postgres (forgotten)" in found.one("locked")["who"]
        assert found.one("no_answer")
        await help_by(found.one("locked"), owner)
        await wait_until(lambda: gone(database, "locked"))


async def test_a_full_queue_of_notifications_names_who_sleeps(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(holding, "QUEUE_GROWS", 1e-7)
    async with connected(database) as owner:
        sleeper = await asyncpg.connect(database)
        await sleeper.execute("LISTEN doctored")
        await sleeper.execute("BEGIN; SELECT 1")
        await owner.execute("SELECT pg_notify('doctored', repeat('x', 7900) || n) FROM generate_series(1, 5) AS n")
        found = (await told(database)).one("notify_queue")
        assert (found["level"], f"pid {sleeper.get_server_pid()}" in found["who"]) == ("warn", True), found
        monkeypatch.setattr(holding, "QUEUE_SILENT", 1e-7)
        assert (await told(database)).one("notify_queue")["level"] == "bad"
        await help_by(found, owner)
        sleeper.terminate()
        await owner.execute("SELECT pg_notify('doctored', '')")
        await wait_until(lambda: gone(database, "notify_queue"))


async def test_dead_checkpoints_are_vacuumed(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schema, "DEAD_ROWS", 10)
    async with connected(database) as owner:
        await owner.execute("ALTER TABLE reactive_orch.checkpoints SET (autovacuum_vacuum_threshold = 100000000)")
        async with in_transaction(database, "SELECT 1", isolation="repeatable read"):
            await owner.execute("SET session_replication_role = replica")  # nothing seals these
            await owner.execute(
                "INSERT INTO reactive_orch.checkpoints (replica_set, projection, log, partition) "
                "VALUES ('r', 'p', 'events', 1)"
            )
            for _ in range(20):
                await owner.execute("UPDATE reactive_orch.checkpoints SET position = position + 1")
            await owner.execute("SELECT pg_stat_force_next_flush()")
            await wait_until(lambda: has(database, "bloat"))
        found = (await told(database)).one("bloat")
        await help_by(found, owner)
        await wait_until(lambda: gone(database, "bloat"))
        monkeypatch.setattr(schema, "BYTES_ALWAYS_WELL", 0)
        monkeypatch.setattr(schema, "BYTES_PER_ROW", 1)
        assert "VACUUM FULL" in (await told(database)).one("bloat")["command"]


async def has(url: str, code: str) -> bool:
    return code in (await told(url)).codes


@pytest.fixture
async def role(cluster: Cluster) -> AsyncIterator[str]:
    """A role of its own, without rights."""
    async with connected(cluster.url()) as connection:
        await connection.execute("CREATE ROLE doctored LOGIN")
        yield "doctored"
        await connection.execute("DROP ROLE doctored")


@pytest.fixture
async def owner(role: str, database: str) -> AsyncIterator[Connection]:
    """The owner's connection to a database in which the role has what a worker is granted."""
    async with connected(database) as connection:
        await connection.execute(grants(role, "worker"))
        yield connection
        await connection.execute(f"DROP OWNED BY {role}")


async def test_the_rights_that_are_granted_are_enough(owner: Connection, role: str, database: str) -> None:
    url = as_role(role, database)
    assert (await told(url)).codes == ["see_queries"]
    await owner.execute("SET application_name = 'reactive_orch:work:x'")
    both = (await told(url)).findings
    assert [each["code"] for each in both] == ["see_queries", "end_sessions"]
    for finding in both:
        await help_by(finding, owner)
    assert (await told(url)).codes == []
    await owner.execute(
        f"REVOKE UPDATE ON reactive_orch.checkpoints FROM {role}; REVOKE USAGE ON SEQUENCE reactive_orch.member_ids "
        f"FROM {role}; REVOKE EXECUTE ON FUNCTION reactive_orch.lock_namespace() FROM {role}"
    )
    found = (await told(url)).one("rights")
    for lacks in ("table checkpoints (UPDATE)", "sequence member_ids (USAGE)", "function lock_namespace (EXECUTE)"):
        assert lacks in found["text"]
    await help_by(found, owner)
    assert (await told(url)).codes == []


async def test_a_role_without_any_right_is_told_which_it_needs(role: str, database: str) -> None:
    url = as_role(role, database)
    async with connected(database) as owner:
        await owner.execute("REVOKE EXECUTE ON FUNCTION pg_notification_queue_usage() FROM PUBLIC")
        found = await told(url)
        assert found.codes == ["rights", "see_queries", "not_known"]
        assert "the queue of notifications" in found.one("not_known")["text"]
        await help_by(found.one("rights"), owner)
        assert "rights" not in (await told(url)).codes
        await owner.execute(f"DROP OWNED BY {role}")


async def test_the_rights_that_are_looked_at_are_those_of_what_the_role_is_for(role: str, database: str) -> None:
    url = as_role(role, database)
    async with connected(database) as owner:
        await owner.execute(grants(role, "monitor"))
        assert "rights" not in (await told(url, purpose="monitor")).codes
        assert "worker" in (await told(url)).one("rights")["text"]
        found = (await told(url, purpose="operator")).one("rights")
        assert "rights that an operator needs" in found["text"]
        await help_by(found, owner)
        assert "rights" not in (await told(url, purpose="operator")).codes
        await owner.execute(f"DROP OWNED BY {role}")


@pytest.mark.parametrize("of", ["ROLE {role}", "DATABASE {db}"])
async def test_a_limit_of_connections_that_no_worker_can_live_with(
    owner: Connection, role: str, database: str, of: str
) -> None:
    db = await owner.fetchval("SELECT current_database()")
    url = as_role(role, database)
    for most, level in ((5, "bad"), (7, "warn")):
        await owner.execute(f"ALTER {of.format(role=role, db=db)} CONNECTION LIMIT {most}")
        found = (await told(url)).one("connections")
        assert (found["level"], f"CONNECTION LIMIT {most}" in found["text"]) == (level, True), found
    await help_by(found, owner)
    assert "connections" not in (await told(url)).codes


async def test_more_connections_than_the_server_has(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "DEFAULTS", Config(database_url="postgresql://", connections_max=1_000))
    found = (await told(database)).one("connections")
    assert (found["level"], "max_connections" in found["text"]) == ("warn", True)


async def test_who_runs_nothing_and_who_is_gone_are_told(database: str) -> None:
    @make_projection("run")
    async def runs(_event: Event, _tx: Connection) -> None: ...

    async with connected(database) as owner:
        await owner.execute(
            "INSERT INTO reactive_orch.replica_sets VALUES ('old shop', 1);"
            "INSERT INTO reactive_orch.generations (replica_set, number, reason, subjects, members, moved, initiator, "
            "wake_source, noticed_at, created_at, completed_at) VALUES "
            "('old shop', 1, 'leave', '{}', '{}', 0, 1, 'timer', now(), now() - interval '30 days', now());"
            "INSERT INTO reactive_orch.projections (replica_set, name, log, filter, log_identity) "
            "VALUES ('test', 'left', 'events', '{}', reactive_orch.log_identity('events'))"
        )
        async with serving(database, runs):
            await wait_settled(owner, members=1)
            found = await told(database)
            assert found.codes == ["forgotten", "unserved"]
            assert found.one("forgotten")["command"] == f"{OURS} replica-sets remove --replica-set 'old shop'"
            assert "left is run by no worker" in found.one("unserved")["text"]
            assert (await told(database, "test")).codes == ["unserved"]


async def test_versions_that_are_too_old_are_told(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with connected(database) as connection:
        major = connection.get_server_version().major
    monkeypatch.setattr(server, "SOUND_LISTEN", {major: 99})
    assert (await told(database)).one("minor_version")["level"] == "warn"
    monkeypatch.setattr(server, "OLDEST_VERSION", major + 1)
    assert (await told(database)).one("version")["level"] == "bad"


@pytest.mark.parametrize(("ahead", "words"), [(60.4, "behind"), (-59.6, "ahead of")])
async def test_clocks_that_differ_are_told(
    database: str, monkeypatch: pytest.MonkeyPatch, ahead: float, words: str
) -> None:
    """By so much that 60 s are said if the database answers within 0.9 s."""
    real = time.time
    monkeypatch.setattr(doctor_hosts, "time", SimpleNamespace(time=lambda: real() + ahead))
    assert f"60 s {words} this machine's" in (await told(database)).one("clocks")["text"]


async def test_a_host_that_does_not_answer_is_named(cluster: Cluster, database: str) -> None:
    two = database.replace(
        f"127.0.0.1:{cluster.port}", f"127.0.0.1:1,127.0.0.1:{cluster.port},localhost:{cluster.port}"
    )
    found = (await told(two)).one("host_silent")
    assert "postgresql://postgres@127.0.0.1:1/" in found["text"]


async def test_standbys_their_slots_and_old_primaries(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(holding, "ROWS_KEPT_FOR", -1)
    async with connected(cluster.url()) as primary, slot(primary):
        with contextlib.ExitStack() as stack:
            standby = stack.enter_context(_Standby(cluster))
            assert (await told(standby.url())).one("standby")["level"] == "bad"
            kept = "SELECT xmin IS NOT NULL FROM pg_replication_slots"
            await wait_until(lambda: primary.fetchval(kept))
            assert "lags" in (await told(cluster.url())).one("old_slot")["text"]
            both = cluster.url().replace(f":{cluster.port}", f":{cluster.port},127.0.0.1:{standby.port}")
            assert "two_primaries" not in (await told(both)).codes
            async with connected(standby.url()) as promoted:
                await promoted.fetchval("SELECT pg_promote()")
            assert "one is an old primary" in (await told(both)).one("two_primaries")["text"]
        found = (await told(cluster.url())).one("old_slot")
        assert "nobody reads it" in found["text"]
        await help_by(found, primary)
        assert await gone(cluster.url(), "old_slot")


@contextlib.asynccontextmanager
async def slot(primary: Connection) -> AsyncIterator[None]:
    """Make the standby's slot; it is gone at the end, as it would keep the server's files for ever."""
    await primary.execute("SELECT pg_create_physical_replication_slot('doctored')")
    try:
        yield
    finally:
        await primary.execute(
            "SELECT pg_drop_replication_slot(s.slot_name) FROM pg_replication_slots s WHERE s.slot_name = 'doctored'"
        )


class _Standby(Standby):
    def _make(self) -> None:
        super()._make()
        with (self._data / "postgresql.conf").open("a") as file:
            file.write(
                "primary_slot_name = 'doctored'\nhot_standby_feedback = on\nwal_receiver_status_interval = '1s'\n"
            )


CARRIED = ", ".join(
    [
        *doctor_hosts.CARRIED,
        "quote_all_identifiers",
        *(f"tcp_{name}" for name in ("keepalives_idle", "keepalives_interval", "keepalives_count", "user_timeout")),
    ]
)
POOLERS = {
    "refuses": ("session", "", ["pooler_refuses", "pooler"]),
    "drops": ("session", CARRIED, ["pooler_drops", "pooler"]),
    "transactions": ("transaction", CARRIED, ["pooler_drops", "pooler_transactions"]),
}


@pytest.mark.skipif(pgbouncer.PROGRAM is None, reason="pgbouncer is not installed (Debian: pgbouncer)")
@pytest.mark.parametrize("kind", POOLERS)
async def test_a_pooler_in_between_is_seen_through(database: str, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    mode, ignored, codes = POOLERS[kind]
    if kind == "transactions":
        monkeypatch.setattr(doctor_hosts, "HEARD_WITHIN_S", 0.5)  # there nothing is heard however long one waits
    async with connected(database) as owner, pgbouncer.pooled(database, mode, ignored=ignored) as url:
        await owner.execute("DROP SEQUENCE reactive_orch.bell")
        found = await told(url)
        assert [code for code in found.codes if code != "bell"] == codes
        assert found.one("bell"), "what lies behind it is looked at"


@pytest.mark.skipif(pgbouncer.PROGRAM is None, reason="pgbouncer is not installed (Debian: pgbouncer)")
async def test_a_pooler_that_lets_nobody_begin_a_transaction_is_named(database: str) -> None:
    async with pgbouncer.pooled(database, "statement", ignored=CARRIED) as url:
        with pytest.raises(ConfigError, match=r"a pooler that lets .*: give the address of the server itself"):
            await told(url)


async def test_what_people_read(database: str) -> None:
    url = ("--database-url", database)
    well = (await run("doctor", *url)).done()
    assert well.startswith("all is well: looked at database test_")
    assert well.count("\n") == 1
    assert (
        (await run("doctor", "--replica-set", "nobody", *url)).complaint(CONFIG).startswith("there is no replica set")
    )
    async with connected(database) as owner:
        await owner.execute("DROP SEQUENCE reactive_orch.bell")
    ill = await run("doctor", *url)
    assert (ill.code, ill.err) == (FAILED, "")
    assert ill.out.startswith(
        "warn: the sequence reactive_orch.bell is missing: nobody rings, and workers poll\n"
        "    python -m reactive_orch migrate\n"
        "    (each of these with the same --database-url)\nlooked at database test_"
    )


async def test_a_database_out_of_reach_is_one_line() -> None:
    assert "cannot be reached" in (await run("doctor", "--database-url", "postgresql://x@127.0.0.1:1/x")).complaint(
        UNREACHABLE
    )
    both = "postgresql://x@127.0.0.1:1,127.0.0.1:2/x"
    assert "127.0.0.1:2" in (await run("doctor", "--database-url", both)).complaint(UNREACHABLE)
