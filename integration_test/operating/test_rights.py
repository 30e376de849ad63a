"""Whose code runs, and what a writer and a worker may do to each other: hostile code and roles beside ours."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import asyncpg
import pytest

import reactive_orch
from integration_test.harness.checkers import wait_handled
from integration_test.harness.command_line import CONFIG, run
from integration_test.harness.connections import as_role, connected, prepared
from integration_test.harness.in_process import run_until_idle
from integration_test.harness.processes import WorkerProcess
from integration_test.harness.projections import POISON
from integration_test.harness.waiting import wait_until
from reactive_orch import Event, Expected, NewEvent, append, projection, read_stream
from reactive_orch.postgres import migrations
from reactive_orch.postgres.grants import grants
from reactive_orch.postgres.migrations import NEWEST

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from integration_test.harness.cluster import Cluster
    from integration_test.harness.connections import Connection

ORDER = NewEvent(aggregate_type="Key", aggregate_id="1", event_type="Written")

PACKAGE = Path(reactive_orch.__file__).parent

TYPES = (
    *("smallint", "integer", "bigint", "numeric", "float8", "text", "name", "varchar", "oid", "regclass", "boolean"),
    *("uuid", "jsonb", "timestamptz", "interval", "smallint[]", "integer[]", "bigint[]", "text[]"),
)
"""What our statements and functions handle, and what that is cast to where no operator or function fits."""

PLANT = """
CREATE SEQUENCE public.hostile_calls;
GRANT ALL ON SEQUENCE public.hostile_calls TO PUBLIC;

CREATE PROCEDURE public.plant(name text, arguments text, result text) LANGUAGE plpgsql AS $plant$
BEGIN
    EXECUTE format('CREATE FUNCTION public.%I(%s) RETURNS %s LANGUAGE plpgsql AS $$
                    BEGIN PERFORM pg_catalog.nextval(''public.hostile_calls''); RETURN NULL; END $$',
                   name, arguments, result);
END
$plant$;

DO $$
DECLARE
    types text[] := string_to_array('{types}', ' ');
    used  text[] := string_to_array('{names}', ' ');
    exact boolean := {exact};
    o record;
    f record;
BEGIN
    FOR o IN
        SELECT op, l, r FROM unnest('{{=,<>,<,<=,>,>=,+,-,||}}'::text[]) AS op, unnest(types) AS l, unnest(types) AS r
        WHERE exact OR to_regoperator(format('pg_catalog.%s(%s,%s)', op, l, r)) IS NULL
    LOOP
        IF to_regprocedure(format('public.hostile(%s,%s)', o.l, o.r)) IS NULL THEN
            CALL public.plant('hostile', o.l || ',' || o.r, 'boolean');
        END IF;
        EXECUTE format('CREATE OPERATOR public.%s (LEFTARG = %s, RIGHTARG = %s, FUNCTION = public.hostile)',
                       o.op, o.l, o.r);
    END LOOP;
    FOR f IN
        SELECT n, a
        FROM (SELECT DISTINCT p.proname::text AS n FROM pg_proc p
              WHERE p.pronamespace = 'pg_catalog'::regnamespace AND p.proname = ANY (used)) AS known,
             (SELECT t AS a FROM unnest(types) AS t UNION SELECT t || ',' || t FROM unnest(types) AS t
              UNION SELECT t || ',integer' FROM unnest(types) AS t UNION SELECT 'text,' || t FROM unnest(types) AS t
              UNION VALUES ('text,text,text'), ('text,text,text,text'), ('text,text,boolean'), ('text[],text'))
             AS shapes
        WHERE exact OR to_regprocedure(format('pg_catalog.%I(%s)', n, a)) IS NULL
    LOOP
        CALL public.plant(f.n, f.a, 'text');
    END LOOP;
END
$$;
"""


def _names() -> str:
    """The names of all functions that our SQL calls without a schema."""
    texts = [re.sub(r"--.*|'[^'\n]*'", "", path.read_text()) for path in PACKAGE.glob("**/*.sql")]
    return " ".join(sorted({name for text in texts for name in re.findall(r"(?<![.\w])([a-z_]\w*)\(", text)}))


async def _plant(connection: Connection, *, exact: bool = False) -> None:
    """Put into public whatever fits our calls better than what PostgreSQL has, with `exact` also what fits as well.

    A sequence counts the calls, as it does so also for those that are rolled back or whose error is swallowed.
    """
    await connection.execute(PLANT.format(types=" ".join(TYPES), names=_names(), exact=str(exact).lower()))


SPARE_ASYNCPG = """
DO $$
DECLARE dropped text;
BEGIN
    FOR dropped IN
        SELECT pg_catalog.concat('FUNCTION ', p.oid::regprocedure) FROM pg_proc p
        WHERE p.proname = 'array_agg' AND p.pronamespace = 'public'::regnamespace
        UNION ALL
        SELECT pg_catalog.concat('OPERATOR ', o.oid::regoperator) FROM pg_operator o
        WHERE o.oprname = '<>' AND o.oprleft = 'oid'::regtype AND o.oprnamespace = 'public'::regnamespace
    LOOP
        EXECUTE 'DROP ' || dropped;
    END LOOP;
END
$$;
"""
"""What asyncpg itself calls on a handler's connection, to learn of types: docs/operations.md says what helps."""


async def _hostile_calls(connection: Connection) -> int:
    called = "SELECT pg_sequence_last_value('public.hostile_calls'::regclass)"
    return int(await connection.fetchval(called) or 0)


async def test_code_that_fits_better_than_postgresqls_is_never_run(empty_database: str) -> None:
    """As PostgreSQL 14 and older let everybody plant it: in public, which is on everybody's search_path."""
    async with connected(empty_database) as connection:
        await _plant(connection)
        await connection.execute(SPARE_ASYNCPG)
        await connection.execute("SELECT 1::smallint = 1::oid")
        assert await _hostile_calls(connection) == 1, "it would be noticed"
        await connection.execute("ALTER SEQUENCE public.hostile_calls RESTART")
        await migrations.migrate(connection)
    async with prepared(empty_database) as connection, WorkerProcess(empty_database, "w") as worker:
        await worker.ready()
        for expected in (Expected.NO_STREAM, 1, Expected.ANY):
            await append(connection, [ORDER], expected)
        assert len(await read_stream(connection, "Key", "1")) == 3
        await wait_handled(connection)
        url = ("--database-url", empty_database)
        for command in (
            "status",
            "doctor",
            "rewind --yes --replica-set test --projection handled --to start",
            "migrate",
        ):
            assert (await run(*command.split(), *url)).code == 0
        assert await _hostile_calls(connection) == 0


CALLS = (
    "INSERT INTO reactive_orch.events (aggregate_type, aggregate_id, aggregate_version, event_type) "
    "VALUES ('Key', '1', 1, 'Written')",
    "SELECT reactive_orch.arm_bell('events', 20000)",
    "SELECT reactive_orch.arm_bell('events', 0)",
    "SELECT FROM reactive_orch.observe_log('events')",
    "SELECT reactive_orch.mend_bell()",
    """SELECT reactive_orch.register_projections('r', '{p}', '{events}', '{"{}"}')""",
    "SELECT reactive_orch.rewind('r', 'p', NULL)",
    "SELECT reactive_orch.rewind_effects('r', 'p', 0)",
    "SELECT reactive_orch.position_before('2026-01-01 00:00:00+00'::pg_catalog.timestamptz)",
    "SELECT reactive_orch.await_free('{1}', '{r}', '{p}', '{events}', '{1}')",
    "SELECT reactive_orch.await_death(7)",
    "SELECT reactive_orch.terminate_backends('{nobody}')",
    "SELECT FROM reactive_orch.member_status",
    "UPDATE reactive_orch.checkpoints SET position = 1",
)


async def test_functions_do_not_look_where_their_caller_does(database: str) -> None:
    """Not even if he looks into public first, where everything is planted."""
    async with connected(database) as connection, connected(database) as caller:
        await _plant(connection, exact=True)
        await caller.execute("SET search_path = public, pg_catalog")
        for call in CALLS[:-1]:
            await caller.execute(call)
        with pytest.raises(asyncpg.InvalidTransactionTerminationError):
            await caller.execute(CALLS[-1])
        assert await _hostile_calls(connection) == 0


NAMED = {"notify", "ring", "refuse_unsealed", "lock_namespace", "key_hash", "passes"}
"""Functions that name the schema of all they use: pinning costs them, or whoever inlines them, too much."""


async def test_every_function_pins_its_search_path(database: str) -> None:
    async with connected(database) as connection:
        rows = await connection.fetch(
            "SELECT proname::text FROM pg_proc WHERE pronamespace = 'reactive_orch'::regnamespace "
            "AND 'search_path=pg_catalog, pg_temp' <> ALL (coalesce(proconfig, '{}'))"
        )
        assert {row["proname"] for row in rows} == NAMED


@pytest.fixture
async def roles(cluster: Cluster) -> AsyncIterator[None]:
    """Roles belong to the whole server."""
    async with connected(cluster.url()) as connection:
        await connection.execute("CREATE ROLE writer LOGIN; CREATE ROLE worker LOGIN")
        yield
        await connection.execute("DROP ROLE writer, worker")


@pytest.fixture
async def granted(roles: None, database: str) -> AsyncIterator[Connection]:  # noqa: ARG001
    """The owner's connection to a database in which they have their rights."""
    async with prepared(database) as connection:
        await connection.execute(grants("writer", "appender") + grants("worker", "worker"))
        await connection.execute("GRANT ALL ON public.handled TO worker; GRANT ALL ON SCHEMA public TO worker")
        yield connection


async def test_a_writer_and_a_worker_need_no_more_than_is_granted(granted: Connection, database: str) -> None:
    worker = WorkerProcess(as_role("worker", database), "w")
    async with worker, connected(as_role("writer", database)) as writer:
        await worker.ready()
        await append(writer, [ORDER], Expected.NO_STREAM)
        await append(writer, [ORDER], 1)
        await writer.copy_records_to_table(
            "events",
            schema_name="reactive_orch",
            columns=["aggregate_type", "aggregate_id", "aggregate_version", "event_type"],
            records=[("Key", "2", 1, "Written")],
        )
        words = "append --event-type Written --aggregate-type Key --aggregate-id 3 --database-url"
        assert (await run(*words.split(), as_role("writer", database))).done() == "appended 1 event\n"
        await wait_handled(granted)

        async def well() -> bool:
            return bool((await worker.health())["health"] == "ok")

        await wait_until(well, what="health says so")
        migrated = await run("migrate", "--database-url", as_role("worker", database))
        assert migrated.done() == f"nothing to do: the schema has step {NEWEST} already\n"


@pytest.mark.parametrize("table", ["failing_keys", "dead_letters", "markers"])
async def test_a_right_that_lacks_on_our_own_tables_is_no_failure_of_a_handler(
    granted: Connection, database: str, table: str
) -> None:
    url = as_role("worker", database)
    await granted.execute("GRANT SELECT ON public.cure TO worker")
    await granted.execute(f"REVOKE INSERT ON reactive_orch.{table} FROM worker")
    await append(granted, [NewEvent(aggregate_type="Key", aggregate_id="1", event_type=POISON)])
    async with WorkerProcess(url, "w", projections=["poisoned"], options=("--retries", "3")) as worker:
        assert await worker.wait() == CONFIG
        gives = (
            'its owner gives it by `python -m reactive_orch grants --role worker --for worker | psql "$DATABASE_URL"`'
        )
        assert worker.log[-1].endswith(f"lacks a right: permission denied for table {table}; {gives}")
        assert not [line for line in worker.log if "parked" in line]


async def test_a_worker_may_park_and_be_asked_to_try_again(granted: Connection, database: str) -> None:
    url = as_role("worker", database)
    await granted.execute("GRANT SELECT ON public.cure TO worker")
    await append(granted, [NewEvent(aggregate_type="Key", aggregate_id="1", event_type=t) for t in (POISON, "Good")])
    options = ("--retries", "0", "--until-idle")
    async with WorkerProcess(url, "w", projections=["poisoned"], options=options) as worker:
        assert await worker.wait() == 0
    await granted.execute("INSERT INTO public.cure VALUES (true)")
    of = ("--replica-set", "test", "--projection", "poisoned", "--all", "--database-url", database)
    asked = await run("dead-letters", "retry", *of)
    assert asked.out.startswith("2 events of 1 key of poisoned: to be tried again")
    assert (asked.code, "no worker" in asked.err) == (0, True)
    async with WorkerProcess(url, "w2", projections=["poisoned"], options=options) as worker:
        assert await worker.wait() == 0
    await wait_handled(granted, "poisoned")


PLANTS = (
    "INSERT INTO reactive_orch.events (global_position, aggregate_type, aggregate_id, aggregate_version, event_type) "
    "OVERRIDING SYSTEM VALUE VALUES (5, 'Key', '9', 1, 'Planted')",
    "COPY reactive_orch.events (global_position, aggregate_type, aggregate_id) FROM STDIN",
    "SELECT setval('reactive_orch.events_global_position_seq', 1000)",
    "SELECT nextval('reactive_orch.events_global_position_seq')",
    "UPDATE reactive_orch.events SET aggregate_version = 7",
    "DELETE FROM reactive_orch.events",
    "TRUNCATE reactive_orch.events",
    "BEGIN; LOCK TABLE reactive_orch.events IN SHARE MODE",
    "SELECT reactive_orch.rewind('test', 'handled', 0)",
    "ALTER TABLE reactive_orch.events DISABLE TRIGGER ring",
)


@pytest.mark.parametrize("plant", PLANTS)
@pytest.mark.usefixtures("granted")
async def test_a_writer_cannot_choose_a_position_nor_change_what_is_written(database: str, plant: str) -> None:
    async with connected(as_role("writer", database)) as writer:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await writer.execute(plant)


@pytest.mark.parametrize("position", [0, -1, -(2**63)])
async def test_nobody_plants_a_position_that_no_reader_looks_at(database: str, position: int) -> None:
    async with connected(database) as owner:
        with pytest.raises(asyncpg.CheckViolationError):
            await owner.execute(PLANTS[0].replace("(5,", f"({position},"))


async def test_a_writer_cannot_silence_the_bell(granted: Connection, database: str) -> None:
    async with connected(as_role("writer", database)) as writer:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await writer.execute("SELECT reactive_orch.arm_bell('events', 0)")
    assert await granted.fetchval("SELECT pg_sequence_last_value('reactive_orch.bell'::regclass)") is None


async def test_who_may_empty_the_log_needs_no_right_on_anything_else(database: str) -> None:
    async with connected(database) as owner:
        await owner.execute("DROP ROLE IF EXISTS emptier; CREATE ROLE emptier LOGIN")
        await owner.execute(
            "GRANT USAGE ON SCHEMA reactive_orch TO emptier; GRANT TRUNCATE ON reactive_orch.events TO emptier"
        )
        async with connected(as_role("emptier", database)) as emptier:
            await emptier.execute("TRUNCATE reactive_orch.events")
        await owner.execute("DROP OWNED BY emptier; DROP ROLE emptier")


@pytest.mark.parametrize(("may", "after"), [(False, "1s"), (True, "100ms")])
async def test_deadlocks_are_looked_for_sooner_by_who_may_say_so(
    granted: Connection, database: str, *, may: bool, after: str
) -> None:
    seen: list[str] = []

    @projection("shown")
    async def shown(_: Event, tx: Connection) -> None:
        seen.append(await tx.fetchval("SHOW deadlock_timeout"))

    await append(granted, [NewEvent(aggregate_type="Key", aggregate_id=str(n), event_type="Written") for n in range(3)])
    if may:
        await granted.execute("GRANT SET ON PARAMETER deadlock_timeout TO worker")
    try:
        await run_until_idle(as_role("worker", database), shown, batch_events=1)
    finally:
        await granted.execute("REVOKE SET ON PARAMETER deadlock_timeout FROM worker")
    assert seen == [after] * 3, "in each batch"
