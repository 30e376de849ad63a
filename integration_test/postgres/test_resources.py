"""What the server lacks for a while is no lost connection: nothing is forgotten for it, and pauses grow."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import anyio
import asyncpg
import pytest

from integration_test.harness.connections import connected
from integration_test.harness.in_process import serving
from integration_test.harness.load import append_events
from integration_test.harness.waiting import wait_until
from reactive_orch import Config, Event, Node, Worker, projection
from reactive_orch.errors import Exhausted
from reactive_orch.model import OWN_LOG, Subscription
from reactive_orch.postgres.database import Database
from reactive_orch.postgres.faults import Kind, classify, classify_foreign

if TYPE_CHECKING:
    from integration_test.harness.connections import Connection

ATTEMPTS = 6
PAUSES_S = 0.5 * sum(0.05 * 2**n for n in range(ATTEMPTS - 1))
"""The shortest that so many attempts may take, when each pause is twice the one before, less its jitter."""

_FULL_DISK = """
CREATE SEQUENCE public.attempts;
CREATE FUNCTION public.no_space() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM nextval('public.attempts');
    RAISE EXCEPTION 'could not extend file' USING ERRCODE = 'disk_full';
END
$$;
CREATE TRIGGER no_space BEFORE UPDATE ON reactive_orch.checkpoints EXECUTE FUNCTION public.no_space();
"""


async def test_a_full_disk_is_waited_for_with_growing_pauses(database: str) -> None:
    handled: list[int] = []

    @projection("follow")
    async def follow(event: Event, tx: object) -> None:  # noqa: ARG001
        handled.append(event.global_position)

    async with (
        connected(database) as db,
        Node(Config(database_url=database)) as node,
        anyio.create_task_group() as tasks,
    ):
        worker = Worker(node, "test", [follow])
        tasks.start_soon(worker.run)

        async def attempts() -> bool:
            return int(await db.fetchval("SELECT last_value FROM public.attempts")) >= ATTEMPTS

        async def all_handled() -> bool:
            return len(handled) == 20

        await wait_until(lambda: _holds(worker), what="the worker holds its partitions")
        await db.execute(_FULL_DISK)
        incarnation, began = node.database.incarnation, time.monotonic()
        await append_events(db, 20)
        await wait_until(attempts, what=f"{ATTEMPTS} attempts")
        assert time.monotonic() - began >= PAUSES_S
        assert node.database.incarnation == incarnation
        await db.execute("DROP TRIGGER no_space ON reactive_orch.checkpoints")
        await wait_until(all_handled, what="all is handled")
        assert node.database.incarnation == incarnation
        worker.stop()


async def _holds(worker: Worker) -> bool:
    return len(worker.partitions.get(Subscription("follow", OWN_LOG), ())) == 64


async def test_who_reads_the_log_keeps_its_connection(database: str) -> None:
    """It would need another one, of a server that may have none left either."""

    @projection("follow")
    async def follow(event: Event, tx: object) -> None: ...

    async with connected(database) as db:
        await db.execute(_NO_BELL)

        async def attempts() -> bool:
            return int(await db.fetchval("SELECT last_value FROM public.attempts")) >= 4

        async with serving(database, follow):
            await wait_until(attempts, what="the bell is armed")
            assert await db.fetchval("SELECT last_value FROM public.first_tail") == await db.fetchval(_TAIL)


_NO_BELL = """
CREATE SEQUENCE public.attempts;
CREATE SEQUENCE public.first_tail;
CREATE OR REPLACE FUNCTION reactive_orch.arm_bell(in_log text, for_ms bigint) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    attempt bigint := nextval('public.attempts');
BEGIN
    IF attempt = 1 THEN
        PERFORM setval('public.first_tail', pg_backend_pid());
    END IF;
    IF attempt < 4 THEN
        RAISE EXCEPTION 'could not extend file' USING ERRCODE = 'disk_full';
    END IF;
    RETURN NULL;
END
$$;
"""
_TAIL = "SELECT a.pid FROM pg_stat_activity a WHERE a.application_name LIKE 'reactive_orch:tail:%'"


async def test_a_connection_too_many_loses_nothing(database: str) -> None:
    async with connected(database) as db:
        await db.execute("DROP ROLE IF EXISTS limited")
        await db.execute("CREATE ROLE limited LOGIN CONNECTION LIMIT 1")
        url = database.replace("postgres@", "limited@")
        pools = Database(url, label="test", connections_max=4, handler_timeout_s=60)
        await pools.open()
        try:
            async with pools.processing():
                with pytest.raises(Exhausted):
                    async with pools.coordination():
                        pass
            assert pools.incarnation == 0
        finally:
            await pools.close()
            await db.execute("DROP ROLE limited")


@pytest.mark.parametrize(
    ("error", "own", "foreign"),
    [
        (asyncpg.DiskFullError(), Kind.RESOURCES, Kind.RESOURCES),
        (asyncpg.TooManyConnectionsError(), Kind.RESOURCES, Kind.RESOURCES),
        (asyncpg.OutOfMemoryError(), Kind.RESOURCES, Kind.RESOURCES),
        (asyncpg.SerializationError(), Kind.CONFLICT, Kind.CONFLICT),
        (asyncpg.LockNotAvailableError(), Kind.CONFLICT, Kind.STATEMENT),
        (asyncpg.QueryCanceledError(), Kind.CONFLICT, Kind.STATEMENT),
        (asyncpg.AdminShutdownError(), Kind.LOST, Kind.LOST),
        (asyncpg.IdleInTransactionSessionTimeoutError(), Kind.LOST, Kind.LOST),
        (TimeoutError(), Kind.LOST, Kind.STATEMENT),
        (ConnectionResetError(), Kind.LOST, Kind.STATEMENT),
        (asyncpg.InvalidCachedStatementError(), Kind.STALE, Kind.STATEMENT),
        (asyncpg.InvalidSQLStatementNameError(), Kind.STALE, Kind.STATEMENT),
        (asyncpg.InternalServerError(), Kind.STALE, Kind.STATEMENT),
        (asyncpg.DataCorruptedError(), Kind.STATEMENT, Kind.STATEMENT),
        (asyncpg.UniqueViolationError(), Kind.STATEMENT, Kind.STATEMENT),
        (asyncpg.UndefinedTableError(), Kind.MISUSE, Kind.STATEMENT),
        (asyncpg.InvalidPasswordError(), Kind.REFUSED, Kind.STATEMENT),
    ],
)
async def test_kinds(database: str, error: Exception, own: Kind, foreign: Kind) -> None:
    """Of our own statements, and of a handler's on an open connection; on a closed one all is lost."""
    connection: Connection = await asyncpg.connect(database)
    assert classify(error) is own
    assert classify_foreign(error, connection) is foreign
    assert classify_foreign(ExceptionGroup("", [ValueError(), error]), connection) is foreign
    connection.terminate()
    assert classify_foreign(error, connection) is Kind.LOST
