"""Where a new projection begins: found once, for all partitions, when it is first registered."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from integration_test.harness.cases import thorough
from integration_test.harness.checkers import wait_settled
from integration_test.harness.command_line import run
from integration_test.harness.connections import connected, prepared
from integration_test.harness.in_process import event, run_until_idle, serving
from integration_test.harness.load import append_events
from integration_test.harness.projections import handled, record
from integration_test.harness.waiting import wait_until
from reactive_orch import Event, Projection, append
from reactive_orch import projection as make_projection
from reactive_orch.errors import ConfigError
from reactive_orch.model import OWN_LOG, Subscription
from reactive_orch.postgres import rewinds

if TYPE_CHECKING:
    from integration_test.harness.connections import Connection
    from reactive_orch.model.projections import Start


def starting(start: Start, *, replay: bool = True) -> Projection:
    @make_projection("handled", start=start, replay=replay)
    async def recorded(e: Event, tx: Connection) -> None:
        await record(tx, "handled", e)

    return recorded


async def positions(connection: Connection) -> list[int]:
    return [row["position"] for row in await connection.fetch("SELECT position FROM handled ORDER BY position")]


async def begun(connection: Connection) -> int:
    """Return the one position at which all checkpoints were made."""
    (row,) = await connection.fetch("SELECT DISTINCT position FROM reactive_orch.checkpoints")
    assert row["position"] == await connection.fetchval("SELECT start_position FROM reactive_orch.projections")
    return int(row["position"])


@pytest.mark.each_server
async def test_from_now_on(database: str) -> None:
    async with prepared(database) as connection:
        await append_events(connection, 10)
        await run_until_idle(database, starting("now"))
        assert await begun(connection) == 10
        await append_events(connection, 5)
        await run_until_idle(database, starting("now"))
        assert await positions(connection) == list(range(11, 16)), "it is found once, and not at the next start"
        assert "began behind position 10 (start: now)" in (await run("status", DATABASE_URL=database)).done()


async def test_from_a_time_on(database: str) -> None:
    async with prepared(database) as connection:
        await append_events(connection, 10)
        created = await connection.fetchval("SELECT created_at FROM reactive_orch.events WHERE global_position = 7")
        await run_until_idle(database, starting(created))
        assert await connection.fetchval("SELECT start_position FROM reactive_orch.projections") == 6
        assert await positions(connection) == [7, 8, 9, 10]


async def test_a_time_to_come_is_refused(database: str) -> None:
    async with prepared(database):
        with pytest.raises(BaseExceptionGroup) as caught:
            await run_until_idle(database, starting(datetime.now(UTC) + timedelta(days=1)))
        assert caught.group_contains(ConfigError, match="cannot start at a time to come")


@pytest.mark.parametrize("prepare", [False, True])
async def test_what_is_in_flight_now_is_not_skipped(database: str, *, prepare: bool) -> None:
    async with prepared(database) as connection, connected(database) as writer:
        await append_events(connection, 10)
        await connection.execute("SELECT setval('reactive_orch.bell', 0)")
        await writer.execute("BEGIN")
        await append(writer, [event("slow")])
        await append_events(connection, 5)
        async with serving(database, starting("now")):
            await wait_settled(connection)
            assert await begun(connection) == 10, "the last position that is settled"
            await writer.execute("PREPARE TRANSACTION 'slow'" if prepare else "COMMIT")
            if prepare:
                await connection.execute("COMMIT PREPARED 'slow'")
            await wait_until(lambda: _handled(connection, 11))
        assert await positions(connection) == list(range(11, 17))


async def _handled(connection: Connection, position: int) -> bool:
    return position in await positions(connection)


async def test_what_commits_while_it_is_found_is_not_skipped(database: str) -> None:
    """Its position is before others that are visible already."""
    async with prepared(database) as connection, connected(database) as writer, connected(database) as registering:
        await append_events(connection, 10)
        await writer.execute("BEGIN")
        await append(writer, [event("slow")])
        await append_events(connection, 5)
        finding = asyncio.ensure_future(registering.fetchval("SELECT reactive_orch.position_now('events')"))
        await wait_until(lambda: _sleeps(connection))
        await append_events(connection, 5)
        await writer.execute("COMMIT")
        assert await finding == 10


async def _sleeps(connection: Connection) -> bool:
    return bool(await connection.fetchval("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'"))


@pytest.mark.parametrize("writers", [4, thorough(16)])
async def test_a_log_that_is_never_quiet_has_a_now(database: str, writers: int) -> None:
    """Nobody has read it, and somebody is always in flight."""

    async def write(name: int) -> None:
        async with connected(database) as own:
            while True:
                await append(own, [event(f"{name}")])

    async with prepared(database) as connection:
        await append_events(connection, 1000)
        tasks = [asyncio.ensure_future(write(name)) for name in range(writers)]
        try:
            await wait_until(lambda: _grown(connection, 1100))
            before = await connection.fetchval("SELECT max(global_position) FROM reactive_orch.events")
            async with serving(database, starting("now")):
                await wait_settled(connection)
            found = await connection.fetchval("SELECT start_position FROM reactive_orch.projections")
            assert found > 1000
            assert found >= before - writers
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def _grown(connection: Connection, events: int) -> bool:
    return bool(await connection.fetchval("SELECT max(global_position) >= $1 FROM reactive_orch.events", events))


async def test_another_projection_and_another_replica_set_find_their_own(database: str) -> None:
    async with prepared(database) as connection:
        await append_events(connection, 10)
        await run_until_idle(database, handled)
        await run_until_idle(database, starting("now"))
        assert await positions(connection) == list(range(1, 11)), "it was registered before, from the beginning"


async def test_what_lies_before_the_start_counts_as_dealt_with(database: str) -> None:
    async with prepared(database) as connection:
        await append_events(connection, 10)
        await run_until_idle(database, starting("now", replay=False))
        await rewinds.rewind(connection, "test", Subscription("handled", OWN_LOG), 0)
        await append_events(connection, 2)
        await run_until_idle(database, starting("now", replay=False))
        assert await positions(connection) == [11, 12]
