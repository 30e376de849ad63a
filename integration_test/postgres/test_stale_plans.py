"""What a connection knows of types and plans goes stale: our own statements are sent again on a new one."""

from __future__ import annotations

import contextlib

import anyio
import asyncpg
import pytest

from integration_test.harness.checkers import checked, wait_handled
from integration_test.harness.connections import connected, prepared
from integration_test.harness.in_process import event, failure, serving
from integration_test.harness.logs import RETYPED
from integration_test.harness.projections import recorder
from integration_test.harness.waiting import wait_until
from reactive_orch import append
from reactive_orch.errors import Superseded
from reactive_orch.model import OWN_LOG, Filter, Window
from reactive_orch.postgres import log_check, windows
from reactive_orch.postgres.database import Database

# As the server speaks when what a session has kept does not hold any more: with an internal error, in sessions that
# are older than the change; in newer ones all is well.
_STALE_FOR_OLDER_SESSIONS = """
CREATE TABLE public.changed (at timestamptz NOT NULL);
CREATE FUNCTION public.demand_newer() RETURNS boolean LANGUAGE plpgsql STABLE AS $$
BEGIN
    IF (SELECT a.backend_start <= (SELECT c.at FROM public.changed c)
        FROM pg_catalog.pg_stat_get_activity(pg_backend_pid()) a) THEN
        RAISE EXCEPTION 'could not open relation with OID 4711' USING ERRCODE = 'internal_error';
    END IF;
    RETURN true;
END $$;
"""
_IN_READS = """
CREATE OR REPLACE VIEW reactive_orch.event_log AS
SELECT 'events'::text COLLATE "C" AS log,
       global_position, partition, bounded_context, aggregate_type, aggregate_id, aggregate_version, event_id,
       CASE WHEN public.demand_newer() THEN event_type END AS event_type,
       event_version, payload, trace_id, correlation_id, causation_id, metadata, created_at, partition_key
FROM reactive_orch.events;
INSERT INTO public.changed VALUES (clock_timestamp());
"""
_IN_SWAPS = """
CREATE FUNCTION public.demand() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN PERFORM public.demand_newer(); RETURN NEW; END $$;
CREATE TRIGGER demand BEFORE UPDATE ON reactive_orch.checkpoints FOR EACH ROW EXECUTE FUNCTION public.demand();
INSERT INTO public.changed VALUES (clock_timestamp());
"""
_IN_HEARTBEATS = _IN_SWAPS.replace("reactive_orch.checkpoints", "reactive_orch.members")


@pytest.mark.parametrize("where", [_IN_READS, _IN_SWAPS, _IN_HEARTBEATS], ids=["reads", "swaps", "heartbeats"])
async def test_an_internal_error_of_older_sessions_ends_no_worker(database: str, where: str) -> None:
    async with prepared(database) as connection:
        await connection.execute(_STALE_FOR_OLDER_SESSIONS)
        await append(connection, [event(f"k{n % 13}") for n in range(20)])
        async with serving(database, recorder("handled"), retries=0, heartbeat_s=0.2):
            await wait_handled(connection)
            await connection.execute(where)
            await append(connection, [event(f"k{n % 13}") for n in range(20)])
            await checked(connection)
            await wait_until(lambda: connection.fetchval(_BEATS_ANEW), what="a heartbeat after the change")


_BEATS_ANEW = "SELECT count(*) FROM reactive_orch.members WHERE heartbeat_at > (SELECT at FROM public.changed)"


async def test_an_internal_error_of_every_session_is_its_events_failure(database: str) -> None:
    """As of a damaged value: the position and the column are named."""
    async with prepared(database) as connection:
        await connection.execute(_DAMAGED)
        await append(connection, [event(f"k{n % 13}") for n in range(20)])
        failed = str(await failure(database, recorder("handled")))
        assert "failed at event position 11 in 1 attempts" in failed
        assert "its event_type cannot be read (InternalServerError (XX000))" in failed
        assert await connection.fetchval("SELECT count(*) FROM public.handled") == 10


_DAMAGED = """
CREATE FUNCTION public.damage(position_of bigint) RETURNS boolean LANGUAGE plpgsql STABLE AS $$
BEGIN
    IF position_of = 11 THEN
        RAISE EXCEPTION 'invalid memory alloc request size' USING ERRCODE = 'internal_error';
    END IF;
    RETURN true;
END $$;
CREATE OR REPLACE VIEW reactive_orch.event_log AS
SELECT 'events'::text COLLATE "C" AS log,
       global_position, partition, bounded_context, aggregate_type, aggregate_id, aggregate_version, event_id,
       CASE WHEN public.damage(global_position) THEN event_type END AS event_type,
       event_version, payload, trace_id, correlation_id, causation_id, metadata, created_at, partition_key
FROM reactive_orch.events;
"""


async def test_a_plan_that_gets_stale_inside_a_transaction_is_made_on_a_new_connection(database: str) -> None:
    """There asyncpg cannot make it anew by itself."""
    window = Window(tuple(range(64)), 0, 20, 100, scattered=False)
    async with connected(database) as connection:
        await append(connection, [event(f"k{n % 13}") for n in range(20)])
        pools = Database(database, label="stale", connections_max=2, handler_timeout_s=60)
        await pools.open()
        try:
            async with pools.processing() as first, pools.processing() as second:
                pids = {first.get_server_pid(), second.get_server_pid()}
                for each in (first, second):
                    await windows.read_window(each, OWN_LOG, window, Filter())
            await connection.execute(RETYPED)
            with pytest.raises(Superseded):
                async with pools.processing() as stale, stale.transaction(readonly=True):
                    await windows.read_window(stale, OWN_LOG, window, Filter())
            async with pools.processing() as new:
                assert new.get_server_pid() not in pids, "the others of the pool are as old as it"
                assert len((await windows.read_window(new, OWN_LOG, window, Filter())).events) == 20
            assert pools.incarnation == 0, "nothing was lost"
        finally:
            await pools.close()


@pytest.mark.thorough
async def test_types_that_change_while_workers_read_and_append(database: str) -> None:
    """Over and over, so that plans get stale at any moment."""
    async with (
        prepared(database) as connection,
        connected(database) as other,
        serving(database, recorder("handled"), retries=0, batch_events=5),
    ):
        for n in range(12):
            try:
                await other.execute(RETYPED.replace("bigint", "integer" if n % 2 else "bigint"))
            except asyncpg.DeadlockDetectedError:  # with who reads the view: nothing is changed then
                await other.execute("ROLLBACK")
            await append(connection, [event(f"k{n % 13}") for n in range(7)])
        await checked(connection)


async def test_a_view_that_is_made_anew_is_no_unsafe_log(database: str) -> None:
    """Made anew between two steps of one statement it is gone for that one: it is looked at again."""
    looks = 0

    async def retype() -> None:
        for _ in range(150):
            await other.execute(RETYPED.replace("ALTER TABLE", "-- ALTER TABLE"))
        tasks.cancel_scope.cancel()

    async with connected(database) as connection, connected(database) as other, anyio.create_task_group() as tasks:
        tasks.start_soon(retype)
        while True:
            with contextlib.suppress(Superseded):
                await log_check.check(connection, OWN_LOG)
            looks += 1
    assert looks > 20
