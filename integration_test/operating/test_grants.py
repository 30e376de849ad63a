"""The roles that `grants` is for, each with what it prints and nothing else: what they may do and what they may not."""

from __future__ import annotations

import contextlib
import json
import signal
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import asyncpg
import pytest

import reactive_orch
from integration_test.harness.checkers import checked, wait_settled
from integration_test.harness.command_line import CONFIG, run, run_here, run_worker
from integration_test.harness.connections import as_role, connected, prepared
from integration_test.harness.in_process import event, run_until_idle, serving
from integration_test.harness.load import append_events
from integration_test.harness.processes import WorkerProcess
from integration_test.harness.projections import record, recorder
from integration_test.harness.waiting import wait_until
from reactive_orch import Event, Expected, NewEvent, append, projection
from reactive_orch.model import OWN_LOG
from reactive_orch.postgres import log
from reactive_orch.postgres.grants import Purpose, grants, quoted
from reactive_orch.postgres.migrations import NEWEST
from reactive_orch.postgres.statements import load_statements
from reactive_orch.runtime.handling import halting, trials

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from integration_test.harness.cluster import Cluster
    from integration_test.harness.connections import Connection

PURPOSES: tuple[Purpose, ...] = get_args(Purpose)
ORDER = NewEvent(aggregate_type="Key", aggregate_id="1", event_type="Written")
OF = ("--replica-set", "test", "--projection", "handled")


def _role(purpose: str) -> str:
    return f'the "{purpose}"'


def _as(purpose: str, url: str) -> str:
    return as_role(_role(purpose), url)


@pytest.fixture
async def roles(cluster: Cluster) -> AsyncIterator[None]:
    """Roles belong to the whole server."""
    names = [quoted(_role(purpose)) for purpose in (*PURPOSES, "nobody")]
    async with connected(cluster.url()) as connection:
        for name in names:
            await connection.execute(f"CREATE ROLE {name} LOGIN")
        yield
        await connection.execute(f"DROP ROLE {', '.join(names)}")


@pytest.fixture
async def owner(roles: None, database: str) -> AsyncIterator[Connection]:  # noqa: ARG001
    """The owner's connection to a database in which they have their rights."""
    async with prepared(database) as connection:
        for purpose in PURPOSES:
            await connection.execute(grants(_role(purpose), purpose))
        await connection.execute(f"GRANT SELECT, INSERT, DELETE ON handled, cure TO {quoted(_role('worker'))}")
        yield connection


AS_OWNER = "; run `python -m reactive_orch migrate` as the owner of the schema, or as one who may make it"

OPEN = """
SELECT 'schema' FROM pg_namespace n, aclexplode(n.nspacl) a WHERE n.nspname = 'reactive_orch' AND a.grantee = 0
UNION ALL
SELECT c.relname FROM pg_class c, aclexplode(c.relacl) a
WHERE c.relnamespace = 'reactive_orch'::regnamespace AND a.grantee = 0
UNION ALL
SELECT t.attname FROM pg_class c JOIN pg_attribute t ON t.attrelid = c.oid, aclexplode(t.attacl) a
WHERE c.relnamespace = 'reactive_orch'::regnamespace AND a.grantee = 0
UNION ALL
SELECT p.proname FROM pg_proc p, aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a
WHERE p.pronamespace = 'reactive_orch'::regnamespace AND a.grantee = 0
"""


@pytest.mark.each_server
async def test_migrate_leaves_nothing_to_public_whatever_somebody_has_given_it(database: str) -> None:
    async with connected(database) as owner:
        assert not await owner.fetch(OPEN)
        await owner.execute("""
            GRANT USAGE ON SCHEMA reactive_orch TO PUBLIC;
            GRANT SELECT (payload) ON reactive_orch.events TO PUBLIC;
            GRANT USAGE ON SEQUENCE reactive_orch.bell TO PUBLIC;
            GRANT DELETE ON reactive_orch.checkpoints TO PUBLIC;
            CREATE FUNCTION reactive_orch.of_a_later_step(integer) RETURNS integer LANGUAGE sql AS 'SELECT 1';
        """)
        assert len(await owner.fetch(OPEN)) == 5
        said = (await run("migrate", DATABASE_URL=database)).done().splitlines()
        assert sorted(said) == [
            "taken from PUBLIC: all rights on ROUTINE reactive_orch.of_a_later_step(integer)",
            "taken from PUBLIC: all rights on SCHEMA reactive_orch",
            "taken from PUBLIC: all rights on SEQUENCE reactive_orch.bell",
            "taken from PUBLIC: all rights on TABLE reactive_orch.checkpoints",
            "taken from PUBLIC: all rights on TABLE reactive_orch.events",
        ]
        assert not await owner.fetch(OPEN)


@pytest.mark.usefixtures("owner")
async def test_whom_the_schema_does_not_belong_to_may_find_nothing_to_migrate(database: str) -> None:
    said = (await run("migrate", DATABASE_URL=_as("worker", database))).done()
    assert said == f"nothing to do: the schema has step {NEWEST} already\n"


async def test_who_may_not_make_the_schema_is_told_who_may(roles: None, empty_database: str) -> None:  # noqa: ARG001
    url = _as("nobody", empty_database)
    for ended in (await run("migrate", DATABASE_URL=url), await run_worker("--migrate", url=url)):
        said = ended.complaint()
        assert said.startswith("the database role lacks a right: permission denied for database ")
        assert said.endswith(AS_OWNER)


async def test_a_worker_that_may_not_migrate_what_is_missing_is_told_who_may(owner: Connection, database: str) -> None:
    await owner.execute("DELETE FROM reactive_orch.schema_steps WHERE version = $1", NEWEST)
    said = (await run_worker("--migrate", url=_as("worker", database))).complaint()
    assert said.endswith(AS_OWNER)


@pytest.mark.each_server
async def test_workers_join_hand_over_die_freeze_and_lose_a_connection(owner: Connection, database: str) -> None:
    url, quick = _as("worker", database), ("--heartbeat", "0.2", "--stale-after", "2")
    async with contextlib.AsyncExitStack() as stack:
        a, b, c = [await stack.enter_async_context(WorkerProcess(url, name, options=quick)) for name in "abc"]
        for worker in (a, b, c):
            await worker.ready()
        await wait_settled(owner, members=3)
        await append_events(owner, 200)
        await checked(owner)
        b.send(signal.SIGKILL)
        await wait_settled(owner, members=2)
        await append_events(owner, 200)
        await checked(owner)
        c.send(signal.SIGSTOP)
        await wait_settled(owner, members=1)
        await wait_until(partial(_no_backend, owner, c.pid), what="what the frozen one has left behind is ended")
        await append_events(owner, 200)
        await checked(owner)
        await owner.fetchval(
            "SELECT pg_terminate_backend(backend_pid) FROM reactive_orch.members WHERE name LIKE $1", f"%:{a.pid}:%"
        )
        await a.said("membership connection is back")
        await a.ready()
        d = await stack.enter_async_context(WorkerProcess(url, "d", options=quick))
        await d.ready()
        await wait_settled(owner, members=2)
        await a.stop()
        await wait_settled(owner, members=1)
        await append_events(owner, 200)
        await checked(owner)

        async def well() -> bool:
            return bool((await d.health())["health"] == "ok")

        await wait_until(well, what="health says so")


async def _no_backend(connection: Connection, pid: int) -> bool:
    return not await connection.fetchval(
        "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE $1", f"reactive_orch:%:{pid}:%"
    )


async def test_a_worker_sees_that_another_has_disarmed_the_bell(owner: Connection, database: str) -> None:
    async with connected(_as("worker", database)) as worker:
        await owner.execute("SELECT reactive_orch.arm_bell('events', 20000)")
        assert not (await log.observe(worker, OWN_LOG, 0)).disarmed
        await owner.execute("SELECT reactive_orch.arm_bell('events', 0)")
        assert (await log.observe(worker, OWN_LOG, 0)).disarmed


async def test_a_worker_finds_where_to_begin(owner: Connection, database: str) -> None:
    await append_events(owner, 10)
    seen: list[str] = []

    def beginning(name: str, start: datetime | str) -> reactive_orch.Projection:
        @projection(name, start=start)  # type: ignore[arg-type]
        async def begun(_: Event, _tx: Connection) -> None:
            seen.append(name)

        return begun

    since = datetime(2026, 1, 1, tzinfo=UTC)
    await run_until_idle(_as("worker", database), beginning("new", "now"), beginning("since", since))
    assert seen == ["since"] * 10


@pytest.mark.each_server
async def test_a_worker_suspends_tries_and_goes_on(
    owner: Connection, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (halting, trials):
        monkeypatch.setattr(module, "PAUSES_S", (0.2, 0.2))
    broken = True

    @projection("handled")
    async def handled(event: Event, tx: Connection) -> None:
        await record(tx, "handled", event)
        if broken:
            raise ConnectionRefusedError

    async with serving(_as("worker", database), handled, retries=0):
        await append(owner, [event(f"k{n}") for n in range(40)])

        async def tried() -> bool:
            return bool(await owner.fetchval("SELECT trials > 1 FROM reactive_orch.projections"))

        await wait_until(tried)
        broken = False
        await checked(owner)


PACKAGE = Path(reactive_orch.__file__).parent / "postgres"
OF_WORKERS = (
    *("checkpoints", "connecting", "dead_letters", "log", "log_check", "membership"),
    *("outages", "projections", "put_off", "suspicions", "windows"),
)
OF_OTHERS = {"append", "lock_stream", "stream_version", "request", "left_out"}
OF_TRANSACTIONS = {"begin", "roll_back", "roll_back_and_clean", "own_role", "seal", "seal_and_go_on"}


@pytest.mark.each_server
@pytest.mark.usefixtures("owner")
async def test_no_statement_of_a_worker_lacks_a_right(database: str) -> None:
    """Those in functions are the business of the tests above."""
    files = [vars(load_statements(PACKAGE / f"{name}.sql")) for name in OF_WORKERS]
    async with connected(_as("worker", database)) as worker:
        for name, sql in (each for file in files for each in file.items()):
            if name not in OF_OTHERS | OF_TRANSACTIONS:
                await _try(worker, sql)


async def _try(connection: Connection, sql: str) -> None:
    """Send a statement, with NULL for whatever it is about; let it fail for anything but a right."""
    transaction = connection.transaction()
    await transaction.start()
    try:
        prepared_one = await connection.prepare(sql)
        values = [True if each.name == "bool" else None for each in prepared_one.get_parameters()]
        await prepared_one.fetch(*values)
    except asyncpg.InsufficientPrivilegeError:
        raise
    except asyncpg.PostgresError:
        pass
    finally:
        with contextlib.suppress(asyncpg.PostgresError):
            await transaction.rollback()


INSERT = """
INSERT INTO reactive_orch.events (aggregate_type, aggregate_id, aggregate_version, event_type)
VALUES ('Key', '0', 1, 'Written')
"""


@pytest.mark.each_server
async def test_an_appender_appends_in_every_way(owner: Connection, database: str) -> None:
    url = _as("appender", database)
    columns = ("aggregate_type", "aggregate_id", "aggregate_version", "event_type")
    async with connected(url) as appender:
        await appender.execute(INSERT)
        await appender.copy_records_to_table(
            "events", schema_name="reactive_orch", columns=columns, records=[("Key", "2", 1, "Written")]
        )
        await append(appender, [ORDER], Expected.NO_STREAM)
        await append(appender, [ORDER], 1)
        await append(appender, [ORDER])
    words = "append --event-type Written --aggregate-type Key --aggregate-id 3"
    assert (await run(*words.split(), DATABASE_URL=url)).done() == "appended 1 event\n"
    assert await owner.fetchval("SELECT count(*) FROM reactive_orch.events") == 6


@pytest.fixture
async def worked(owner: Connection, database: str) -> Connection:
    """The owner's connection, when a worker has left three parked keys behind."""
    await append(owner, [event(f"k{n}", kind) for n in range(3) for kind in ("Bad", "Good")])
    await run_until_idle(_as("worker", database), _bad(), retries=0)
    return owner


def _bad() -> reactive_orch.Projection:
    @projection("handled")
    async def handled(event: Event, tx: Connection) -> None:
        await record(tx, "handled", event)
        if event.event_type == "Bad":
            raise LookupError

    return handled


LOOKS = (
    *("status", "status --json", "replica-sets list", "trace --replica-set test"),
    *("dead-letters list --replica-set test", "dead-letters show --replica-set test"),
)


@pytest.mark.parametrize("purpose", ["monitor", "operator"])
@pytest.mark.each_server
def test_who_monitors_or_operates_may_look(
    holder: int, database: str, purpose: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    said = {look: run_here(capfd, monkeypatch, look, _as(purpose, database)).done() for look in LOOKS}
    assert all(said.values())
    assert [each["pid"] for each in json.loads(said["status --json"])["logs"][0]["held_by"]] == [holder]


@pytest.fixture
async def holder(worked: Connection, database: str) -> AsyncIterator[int]:  # noqa: ARG001
    """The pid of the server's process for an appender who has appended and not committed."""
    async with connected(_as("appender", database)) as appender, appender.transaction():
        await append(appender, [ORDER])
        yield appender.get_server_pid()


@pytest.mark.usefixtures("worked")
async def test_a_monitor_sees_all_of_a_failing_event_but_its_payload(database: str) -> None:
    show = ("dead-letters", "show", "--replica-set", "test", "--key", "k0", "--payload")
    seen = await run(*show, DATABASE_URL=_as("monitor", database))
    assert "\nevent 1: Bad, version 1 of its aggregate\n" in seen.out
    assert "payload" not in seen.out
    (line,) = seen.err.splitlines()
    assert line.startswith(f"payloads are not shown, {_role('monitor')} may not read them: psql ")
    assert "payload: " in (await run(*show, DATABASE_URL=_as("worker", database))).done()


@pytest.mark.each_server
async def test_an_operator_may_act(worked: Connection, database: str) -> None:
    url = _as("operator", database)

    async def done(*words: str) -> str:
        ended = await run(*words, *OF, DATABASE_URL=url)
        assert ended.code == 0, ended
        return ended.out

    assert await done("pause", "--reason", "looking") == "handled is paused\n"
    assert await done("resume") == "handled was paused and runs again\n"
    assert "to be tried again" in await done("dead-letters", "retry", "--key", "k0")
    assert "to be left out" in await done("dead-letters", "discard", "--key", "k1", "--yes")
    async with serving(_as("worker", database), _bad(), retries=0):
        assert (await done("dead-letters", "skip", "--key", "k2", "--yes", "--wait")).endswith("done\n")
        assert (await done("dead-letters", "discard", "--all", "--yes", "--wait")).endswith("done\n")
        assert await worked.fetchval("SELECT count(*) FROM reactive_orch.discarded_events") == 5
    assert "set to position 0" in await done("rewind", "--yes", "--to", "start")
    assert "set to position 0" in await done("rewind", "--yes", "--to", "2026-01-01")
    await run_until_idle(_as("worker", database), recorder("handled"))
    assert "set to position 3" in await done("rewind", "--yes", "--to", "3")
    assert await done("replica-sets", "remove", "--yes") == "projection handled of replica set test is removed\n"


async def test_an_operator_may_end_who_holds_the_log(owner: Connection, database: str) -> None:
    async with connected(_as("appender", database)) as appender, connected(_as("operator", database)) as operator:
        await append(appender, [ORDER])
        pid = appender.get_server_pid()
        assert await operator.fetchval("SELECT pg_terminate_backend($1)", pid)

        async def gone() -> bool:
            return not await owner.fetchval("SELECT count(*) FROM pg_stat_activity WHERE pid = $1", pid)

        await wait_until(gone)


def _gives(purpose: str, needed: str) -> str:
    command = f"python -m reactive_orch grants --role '{_role(purpose)}' --for {needed}"
    return f'its owner gives it by `{command} | psql "$DATABASE_URL"`'


REFUSED_COMMANDS = (
    ("nobody", "status", "schema reactive_orch", "monitor"),
    ("nobody", "append --event-type W --aggregate-type K --aggregate-id 1", "schema reactive_orch", "appender"),
    ("appender", "status", "table logs", "monitor"),
    ("appender", "trace --replica-set test", "table replica_sets", "monitor"),
    ("appender", "replica-sets list", "view member_status", "monitor"),
    ("appender", "dead-letters list --replica-set test", "table failing_keys", "monitor"),
    ("monitor", "append --event-type W --aggregate-type K --aggregate-id 1", "table events", "appender"),
    ("monitor", f"pause {' '.join(OF)}", "function set_projection_state", "operator"),
    ("monitor", f"resume {' '.join(OF)}", "function set_projection_state", "operator"),
    ("monitor", f"rewind {' '.join(OF)} --to start", "function filter_accepted", "operator"),
    ("monitor", f"dead-letters retry --all {' '.join(OF)}", "table failing_keys", "operator"),
    ("monitor", f"replica-sets remove --yes {' '.join(OF)}", "function remove_replica_set", "operator"),
    ("worker", f"rewind {' '.join(OF)} --to start", "function filter_accepted", "operator"),
    ("worker", f"replica-sets remove --yes {' '.join(OF)}", "function remove_replica_set", "operator"),
    ("operator", "append --event-type W --aggregate-type K --aggregate-id 1", "table events", "appender"),
)


@pytest.mark.usefixtures("worked")
def test_a_command_without_a_right_says_in_a_line_what_gives_it(
    database: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for purpose, words, lacking, needed in REFUSED_COMMANDS:
        said = run_here(capfd, monkeypatch, words, _as(purpose, database)).complaint()
        assert said == f"the database role lacks a right: permission denied for {lacking}; {_gives(purpose, needed)}"


async def test_a_log_whose_end_may_not_be_seen_is_no_log_without_events(owner: Connection, database: str) -> None:
    await append(owner, [event("k", "Good")])
    sequence = "events_global_position_seq"
    await owner.execute(f"REVOKE ALL ON SEQUENCE reactive_orch.{sequence} FROM {quoted(_role('monitor'))}")
    for command in ("status", "watch"):
        said = (await run(command, DATABASE_URL=_as("monitor", database))).complaint()
        lacks = f"the database role lacks a right: permission denied for sequence {sequence}"
        assert said == f"{lacks}; {_gives('monitor', 'monitor')}"


@pytest.mark.usefixtures("owner")
async def test_so_does_a_worker(database: str) -> None:
    for purpose in ("nobody", "appender", "monitor", "operator"):
        ended = await run_worker(url=_as(purpose, database))
        said = ended.err.splitlines()[-1]
        lacks = "reactive_orch: the database role lacks a right: permission denied"
        assert (ended.code, said.partition(" for ")[0]) == (CONFIG, lacks)
        assert said.endswith(f"; {_gives(purpose, 'worker')}")


REFUSED = (
    ("appender", "SELECT position FROM reactive_orch.checkpoints"),
    ("appender", "SELECT payload FROM reactive_orch.events"),
    ("appender", "SELECT * FROM reactive_orch.event_log"),
    ("appender", "SELECT reactive_orch.witness_log('events', 0, '0')"),
    ("monitor", "SELECT payload FROM reactive_orch.event_log"),
    ("monitor", "UPDATE reactive_orch.projections SET state = 'paused'"),
    ("monitor", "UPDATE reactive_orch.failing_keys SET request = 'discard'"),
    ("monitor", "SELECT reactive_orch.arm_bell('events', 0)"),
    ("operator", "UPDATE reactive_orch.checkpoints SET position = 0"),
    ("operator", "UPDATE reactive_orch.projections SET filter = '{}'"),
    ("operator", "UPDATE reactive_orch.failing_keys SET state = 'parked'"),
    ("operator", "DELETE FROM reactive_orch.dead_letters"),
    ("operator", "SELECT payload FROM reactive_orch.event_log"),
    ("worker", "UPDATE reactive_orch.checkpoints SET epoch = 7"),
    ("worker", "DELETE FROM reactive_orch.checkpoints"),
    ("worker", "UPDATE reactive_orch.projections SET filter = '{}'"),
    ("worker", "SELECT reactive_orch.rewind('test', 'handled', 0)"),
    ("worker", "DELETE FROM reactive_orch.discarded_events"),
    ("worker", "UPDATE reactive_orch.logs SET identity = gen_random_uuid()"),
    ("worker", "INSERT INTO reactive_orch.events (aggregate_type) VALUES ('Key')"),
    ("worker", "SELECT payload FROM reactive_orch.events"),
    ("nobody", "SELECT * FROM reactive_orch.events"),
)


@pytest.mark.usefixtures("owner")
async def test_what_is_not_its_business_is_refused(database: str) -> None:
    for purpose, sql in REFUSED:
        async with connected(_as(purpose, database)) as connection:
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(sql)
