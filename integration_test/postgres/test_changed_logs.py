"""A log that changes where it has been read: late events, positions that are given twice, another encoding."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from integration_test.harness.cases import thorough
from integration_test.harness.checkers import wait_handled
from integration_test.harness.command_line import CONFIG, run, run_worker
from integration_test.harness.connections import connected, prepared
from integration_test.harness.in_process import serving
from integration_test.harness.load import append_events
from integration_test.harness.logs import HANDLED, PLANT, SEQUENCE, all_handled, handled_up_to, leaves, rewind
from integration_test.harness.projections import handled
from integration_test.harness.waiting import TIMEOUT_S, wait_until
from reactive_orch import UnsafeLog
from reactive_orch.model import OWN_LOG
from reactive_orch.postgres import log_check
from reactive_orch.runtime.reading.log_rules import LogRules

if TYPE_CHECKING:
    from integration_test.harness.cluster import Cluster
    from integration_test.harness.connections import Connection


async def burn(connection: Connection, positions: int) -> None:
    """Draw positions that are never used, as a writer that rolls back does."""
    await connection.execute("SELECT nextval($1::regclass) FROM generate_series(1, $2)", SEQUENCE, positions)


async def assert_stays_refused(connection: Connection, url: str, says: str) -> None:
    """Check that the log is refused as another one, for that reason, and still after much was written."""
    await append_events(connection, 150)
    for _ in range(2):
        with pytest.raises(UnsafeLog, match=says):
            await log_check.check(connection, OWN_LOG)
    complaint = (await run_worker(*HANDLED, url=url)).complaint()
    assert "not the one that these projections have read, from position" in complaint


async def test_an_event_behind_the_settled_end_is_noticed_by_a_running_worker(database: str) -> None:
    async with prepared(database) as connection, asyncio.timeout(TIMEOUT_S):
        await append_events(connection, 20)
        await burn(connection, 10)
        await append_events(connection, 20)
        said: list[Exception] = []
        try:
            async with serving(database, handled):
                await wait_handled(connection)
                await recorded(connection, 50)
                await connection.execute(PLANT.format(27))
                await asyncio.Event().wait()
        except* UnsafeLog as errors:
            said = list(leaves(errors))
        assert "at position 27 there is an event that was not there" in str(said)
        assert "from position 27 on" in (await run_worker(*HANDLED, url=database)).complaint()
        await rewind(database, "26")
        await connection.execute("DELETE FROM public.handled WHERE position > 26")
        await all_handled(connection, database)


async def test_events_that_a_view_hid_for_a_while_are_noticed_when_it_shows_them(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker looks at the view again when it has passed over some of what is hidden."""
    due_s = [3600.0]
    monkeypatch.setattr(LogRules, "due_s", property(lambda _: due_s[0]))
    async with prepared(database) as connection, asyncio.timeout(TIMEOUT_S):
        await append_events(connection, 20)
        said: list[Exception] = []
        shown = await connection.fetchval("SELECT rtrim(pg_get_viewdef('reactive_orch.event_log'::regclass), ';')")
        made = f"CREATE OR REPLACE VIEW reactive_orch.event_log AS {shown}"
        try:
            async with serving(database, handled):
                await wait_handled(connection)
                await connection.execute(f"{made} WHERE event_type <> 'Hidden'")
                while not await connection.fetchval(PASSED_OVER):
                    for event_type in ("Hidden", "Shown"):
                        await append_events(connection, 5, event_type=event_type)
                    await asyncio.sleep(0.05)
                due_s[0] = 0.0
                await append_events(connection, 5, event_type="Shown")
                await asyncio.Event().wait()
        except* UnsafeLog as errors:
            said = list(leaves(errors))
        assert "event_log does not show" in str(said)
        await connection.execute(made)
        assert await connection.fetchval(PASSED_OVER) > 0
        assert "at position " in (await run_worker(*HANDLED, url=database)).complaint()
        await rewind(database, "start")
        await connection.execute("DELETE FROM public.handled")
        await all_handled(connection, database)


PASSED_OVER = """
SELECT count(*) FROM reactive_orch.events e
JOIN reactive_orch.checkpoints c ON c.partition = e.partition AND c.position >= e.global_position
WHERE NOT EXISTS (SELECT FROM public.handled h WHERE h.position = e.global_position)
"""


async def recorded(connection: Connection, up_to: int) -> None:
    """Wait until the log is recorded up to a position."""
    await wait_until(lambda: connection.fetchval("SELECT up_to >= $1 FROM reactive_orch.log_witness", up_to))


async def test_rows_that_arrive_behind_a_sequence_set_ahead_are_noticed(database: str) -> None:
    """As on a subscriber whose subscription was dropped too early: the sequence is ahead, older rows come."""
    async with prepared(database) as connection, asyncio.timeout(TIMEOUT_S):
        await append_events(connection, 20)
        await connection.execute(f"SELECT setval('{SEQUENCE}', 1000000)")
        await all_handled(connection, database)
        await connection.execute(PLANT.format(21))
        await assert_stays_refused(connection, database, "from position 21 on|at position 21 there is an event")


async def test_what_was_deleted_may_not_come_back_but_may_stay_away(database: str) -> None:
    """Old events are deleted before anybody looks again, and after: neither is a change of what has been read."""
    async with prepared(database) as connection:
        await handled_up_to(connection, database, 60)
        for kept_from in (30, 61):
            await connection.execute("DELETE FROM reactive_orch.events WHERE global_position < $1", kept_from)
            await connection.execute("DELETE FROM public.handled WHERE position < $1", kept_from)
            await append_events(connection, 20)
            await all_handled(connection, database)
        assert await connection.fetchval("SELECT count(*) FROM reactive_orch.events") == 40


async def test_events_may_be_rewritten_where_they_are(database: str) -> None:
    """Updated rows and rewritten tables have other transactions and other places, but the same positions and ids."""
    async with prepared(database) as connection:
        await handled_up_to(connection, database, 20)
        await connection.execute("UPDATE reactive_orch.events SET payload = 'forgotten', metadata = '{}'")
        await connection.execute("ALTER TABLE reactive_orch.events ADD note text DEFAULT clock_timestamp()::text")
        await connection.execute(
            "BEGIN; CREATE TEMP TABLE kept AS TABLE reactive_orch.events; TRUNCATE reactive_orch.events;"
            "INSERT INTO reactive_orch.events (global_position, aggregate_type, aggregate_id, aggregate_version,"
            " event_id, event_type) OVERRIDING SYSTEM VALUE SELECT global_position, aggregate_type, aggregate_id,"
            " aggregate_version, event_id, event_type FROM kept; COMMIT"
        )
        await handled_up_to(connection, database, 20)


async def test_many_gaps_are_remembered_up_to_a_number(database: str) -> None:
    """Every second position is a gap: the last hundred are recorded, whatever came before."""
    async with prepared(database) as connection:
        for _ in range(300):
            await append_events(connection, 1, keys=1)
            await burn(connection, 1)
        await all_handled(connection, database)
        gaps = await connection.fetchval("SELECT count(*) FROM reactive_orch.log_witness w, unnest(w.gaps)")
        assert gaps == 100
        await connection.execute(PLANT.format(598))
        with pytest.raises(UnsafeLog, match="at position 598 "):
            await log_check.check(connection, OWN_LOG)


@pytest.mark.parametrize("back_to", [thorough(1), 40, thorough(97)])
async def test_a_sequence_set_back_and_beyond_while_nobody_looked_is_noticed(database: str, back_to: int) -> None:
    async with prepared(database) as connection:
        await handled_up_to(connection, database, 97)
        await burn(connection, 3)
        await all_handled(connection, database)
        await connection.execute("DELETE FROM reactive_orch.events WHERE global_position > $1", back_to)
        await connection.execute(f"SELECT setval('{SEQUENCE}', {back_to})")
        await assert_stays_refused(connection, database, r"not the one that|at position \d+ there is an event")
        await connection.execute("DELETE FROM public.handled")
        await rewind(database, "start")
        await all_handled(connection, database)


async def test_an_emptied_log_whose_trigger_was_off_is_noticed(database: str) -> None:
    """A replica's role, as a restore may use it, fires no triggers."""
    async with prepared(database) as connection:
        await handled_up_to(connection, database, 100)
        await connection.execute(
            "BEGIN; SET LOCAL session_replication_role = replica;TRUNCATE reactive_orch.events RESTART IDENTITY; COMMIT"
        )
        await assert_stays_refused(connection, database, r"not the one that|at position \d+ there is an event")


async def test_the_end_of_the_log_is_known_although_the_checkpoints_are_far_behind(database: str) -> None:
    """Only position 10 has been saved when the sequence falls back to 50: all the worker's windows may go beyond."""
    async with prepared(database) as connection:
        await handled_up_to(connection, database, 100)
        await connection.fetchval("SELECT reactive_orch.rewind('test', 'handled', 10)")
        await connection.execute("DELETE FROM reactive_orch.events WHERE global_position > 50")
        await connection.execute(f"SELECT setval('{SEQUENCE}', 50)")
        with pytest.raises(UnsafeLog, match="at position 51 "):
            await log_check.check(connection, OWN_LOG)


async def test_a_log_that_nobody_has_read_may_begin_anew(database: str) -> None:
    async with prepared(database) as connection:
        await handled_up_to(connection, database, 100)
        await rewind(database, "start")
        await connection.execute("DELETE FROM public.handled; TRUNCATE reactive_orch.events RESTART IDENTITY")
        await handled_up_to(connection, database, 30)
        await burn(connection, 5)
        await handled_up_to(connection, database, 90)


async def test_a_rewind_is_the_word_even_if_nobody_has_noticed_yet(database: str) -> None:
    async with prepared(database) as connection:
        await handled_up_to(connection, database, 50)
        await burn(connection, 10)
        await handled_up_to(connection, database, 10)
        await connection.execute(PLANT.format(55))
        assert "at position 55 " in (await run("status", DATABASE_URL=database)).complaint()
        await rewind(database, "keep")
        await connection.execute("DELETE FROM reactive_orch.events WHERE global_position = 55")
        await handled_up_to(connection, database, 10)


async def test_whoever_comes_first_writes_it_down_for_all(database: str) -> None:
    """The record is one row for all processes and replica sets, and is not written more often than asked.

    Nor does it reach beyond what is settled, whatever is asked.
    """
    async with prepared(database) as connection, connected(database) as other:
        await handled_up_to(connection, database, 10)
        await append_events(connection, 10)
        assert await log_check.witness(connection, OWN_LOG, 20, 60.0) == 10
        async with other.transaction():
            await append_events(other, 1)
            assert await log_check.witness(connection, OWN_LOG, 2**60, 0.0) == 10
        async with other.transaction():
            await other.fetch("SELECT FROM reactive_orch.log_witness FOR UPDATE")
            assert await log_check.witness(connection, OWN_LOG, 20, 0.0) == 10
        assert await log_check.witness(connection, OWN_LOG, 20, 0.0) == 20
        assert await log_check.witness(connection, OWN_LOG, 15, 0.0) == 20
        assert await log_check.witness(connection, OWN_LOG, 2**60, 0.0) == 21


async def test_a_log_restored_under_another_encoding_is_refused_until_the_rewind(cluster: Cluster) -> None:
    """The same keys are other bytes there, and fall into other partitions than their checkpoints say."""
    old = cluster.create_database("old", "--template=template0", "--encoding=LATIN1", "--locale=C")
    new = cluster.create_database("new", "--template=template0", "--encoding=UTF8", "--locale=C")
    try:
        (await run("migrate", DATABASE_URL=old)).done()
        async with prepared(old) as connection:
            await append_odd(connection, 100)
            await all_handled(connection, old)
            await append_odd(connection, 100)
            before = await partitions(connection)
        await asyncio.to_thread(cluster.copy_database, "old", "new")
        async with connected(new) as connection:
            moved = {key for key, partition in (await partitions(connection)).items() if before[key] != partition}
            assert moved, "no key has moved: the test proves nothing"
            for _ in range(2):
                ended = await run_worker(*HANDLED, url=new)
                assert ended.code == CONFIG
                assert "moved to another encoding" in ended.complaint()
            assert await connection.fetchval("SELECT count(*) FROM public.handled") == 100
            await connection.execute("DELETE FROM public.handled")
            await rewind(new, "start")
            await all_handled(connection, new)
        await asyncio.to_thread(cluster.drop_database, "new")
    finally:
        for name in ("old", "new"):
            cluster.drop_database(name)


async def append_odd(connection: Connection, events: int) -> None:
    """Append events whose keys are other bytes in other encodings."""
    await connection.execute(
        "INSERT INTO reactive_orch.events (aggregate_type, aggregate_id, aggregate_version, event_type, payload)"
        " SELECT 'Key', 'Müller-' || i, 1 + (SELECT count(*) FROM reactive_orch.events), 'Happened', '{}'"
        " FROM generate_series(1, $1::integer) i",
        events,
    )


async def partitions(connection: Connection) -> dict[str, int]:
    rows = await connection.fetch("SELECT DISTINCT aggregate_id, partition FROM reactive_orch.events")
    return {row["aggregate_id"]: row["partition"] for row in rows}
