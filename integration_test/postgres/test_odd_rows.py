"""An event that cannot be read, or not as others, is that event's failure: named, and nobody else's."""

from __future__ import annotations

import contextlib
import random
from typing import TYPE_CHECKING, Any

import pytest

from integration_test.chaos import planted
from integration_test.harness.cases import thorough
from integration_test.harness.checkers import assert_accounted, wait_handled
from integration_test.harness.cluster import migrate
from integration_test.harness.connections import connected, prepared
from integration_test.harness.in_process import serving
from integration_test.harness.load import append_events
from integration_test.harness.logs import RETYPED, read_all
from integration_test.harness.processes import WorkerProcess
from integration_test.harness.projections import recorder
from integration_test.harness.waiting import wait_until
from reactive_orch import Config, Event, Node, ProjectionFailed, Worker, projection
from reactive_orch.model.keys import WantedKeys
from reactive_orch.postgres import dead_letters, windows

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from integration_test.harness.cluster import Cluster
    from integration_test.harness.connections import Connection

ODD = """
INSERT INTO reactive_orch.events (aggregate_type, aggregate_id, aggregate_version, event_type, created_at)
VALUES ('Odd', $1, 1, 'E', $2::text::timestamptz) RETURNING global_position
"""


async def run_until_idle(url: str, *projections: Any, **settings: Any) -> None:
    async with Node(Config(database_url=url, **settings)) as node:
        await Worker(node, "test", projections, until_idle=True).run()


@pytest.mark.parametrize("when", ["20026-01-01", "0044-03-15 BC"])
async def test_a_time_that_python_cannot_hold(database: str, when: str) -> None:
    """It is tried as often as an event that fails, then its key is parked, and its column named; all others go on."""
    async with prepared(database) as connection:
        await append_events(connection, 70)
        odd = await connection.fetchval(ODD, "odd", when)
        await append_events(connection, 70)
        async with WorkerProcess(database, "w", options=["--until-idle", "--retries", "2"]) as worker:
            assert await worker.wait() == 0
        await assert_accounted(connection)
        [key] = await dead_letters.listed(connection, WantedKeys("test"))
        assert (key.first_position, key.attempts) == (odd, 3)
        assert "its created_at cannot be read" in key.failure.message
        assert await connection.fetchval("SELECT count(*) FROM public.handled") == 141 - key.events
    assert sum("trying again" in line for line in worker.log) == 2


async def test_it_stops_nobody_but_its_own_worker(database: str) -> None:
    """Another projection of another replica set does not want it, and handles all the others."""

    @projection("others", aggregate_types=["Key"])
    async def others(event: Event, tx: Connection) -> None:  # noqa: ARG001
        seen.append(event.global_position)

    seen: list[int] = []
    async with connected(database) as connection:
        await append_events(connection, 30)
        odd = await connection.fetchval(ODD, "odd", "20026-01-01")
        await append_events(connection, 30)
    await run_until_idle(database, others)
    assert seen == [*range(1, odd), *range(odd + 1, 62)]


async def test_once_it_can_be_read_all_goes_on(database: str) -> None:
    async with prepared(database) as connection:
        await append_events(connection, 30)
        odd = await connection.fetchval(ODD, "odd", "20026-01-01")
        await append_events(connection, 30)
        async with WorkerProcess(database, "w") as worker:
            await worker.said("trying again")
            await connection.execute(
                "UPDATE reactive_orch.events SET created_at = now() WHERE global_position = $1", odd
            )
            await wait_handled(connection)
            await worker.stop()
        assert [row["times"] for row in await connection.fetch(TIMES)] == [1] * 61


async def test_a_log_that_lacks_a_column_is_no_events_failure(database: str) -> None:
    async with connected(database) as connection:
        await append_events(connection, 5)
        await connection.execute("DROP VIEW reactive_orch.event_log")
        await connection.execute(
            "CREATE VIEW reactive_orch.event_log AS "
            "SELECT 'events'::text AS log, global_position, partition FROM reactive_orch.events"
        )
    async with WorkerProcess(database, "w", options=["--until-idle"]) as worker:
        assert await worker.wait() == 2
    assert "the schema reactive_orch is missing or older" in worker.log[-1]


@pytest.mark.each_server
async def test_the_log_gets_other_types_while_workers_read_it(database: str) -> None:
    """Plans that have become stale are made anew."""
    async with prepared(database) as connection, WorkerProcess(database, "w") as worker:
        for new_type in ("integer", "bigint", "integer"):
            await connection.execute(RETYPED.replace("bigint", new_type))
            await append_events(connection, 20)
            await wait_handled(connection)
        await worker.stop()
        assert {row["times"] for row in await connection.fetch(TIMES)} == {1}


TIMES = "SELECT count(*) AS times FROM public.handled GROUP BY position"


@pytest.mark.parametrize("when", ["infinity", "-infinity"])
async def test_times_at_the_ends_of_pythons(database: str, when: str) -> None:
    """They are read; what only watches (the age of an event) does not fail at them."""
    async with prepared(database) as connection:
        await append_events(connection, 3)
        await connection.fetchval(ODD, "odd", when)
        await append_events(connection, 3)
        async with WorkerProcess(database, "w", options=["--until-idle"], env={"TZ": "America/New_York"}) as worker:
            assert await worker.wait() == 0
        await wait_handled(connection)


async def failure_of(url: str) -> str:
    with pytest.RaisesGroup(pytest.RaisesExc(ProjectionFailed), flatten_subgroups=True) as caught:
        await run_until_idle(url, recorder("handled"), retries=0, on_error="halt")
    [failure] = caught.value.exceptions
    while isinstance(failure, ExceptionGroup):
        [failure] = failure.exceptions
    return str(failure)


@pytest.mark.each_server
async def test_what_the_server_cannot_send(database: str) -> None:
    """The column is named with the server's error, as for a damaged value."""
    async with prepared(database) as connection:
        await append_events(connection, 30)
        await connection.execute(DAMAGED)
        failure = await failure_of(database)
        assert "position 20 " in failure
        assert "its event_version cannot be read (DivisionByZeroError (22012))" in failure
        assert await connection.fetchval("SELECT count(*) FROM public.handled") == 19


DAMAGED = """
CREATE OR REPLACE VIEW reactive_orch.event_log AS
SELECT 'events'::text COLLATE "C" AS log,
       global_position, partition, bounded_context, aggregate_type, aggregate_id, aggregate_version, event_id,
       event_type, event_version / (CASE global_position WHEN 20 THEN 0 ELSE 1 END) AS event_version,
       payload, trace_id, correlation_id, causation_id, metadata, created_at, partition_key
FROM reactive_orch.events
"""


@pytest.mark.parametrize("column", ["aggregate_id", "causation_id"])
@pytest.mark.each_server
async def test_text_in_no_encoding(cluster: Cluster, column: str) -> None:
    """A database in SQL_ASCII takes any bytes for text."""
    async with encoded(cluster, "SQL_ASCII") as url, prepared(url) as connection:
        await append_events(connection, 7)
        await connection.execute(NO_TEXT.replace("aggregate_id", column))
        failure = await failure_of(url)
        assert "position 5 " in failure
        assert f"its {column} cannot be read (CharacterNotInRepertoireError (22021))" in failure
        assert await connection.fetchval("SELECT count(*) FROM public.handled") == 4


async def test_a_key_in_no_encoding_waits_and_is_listed(cluster: Cluster) -> None:
    async with encoded(cluster, "SQL_ASCII") as url, prepared(url) as connection:
        await append_events(connection, 7)
        await connection.execute(NO_TEXT)
        await run_until_idle(url, recorder("handled"), retries=0)
        (key,) = await dead_letters.listed(connection, WantedKeys("test"))
        assert key.key.aggregate_id == "\\xe9"
        assert (key.first_position, key.state) == (5, "parked")
        assert await connection.fetchval("SELECT count(*) FROM public.handled") == 6


@pytest.mark.parametrize("retries", [0, 2])
async def test_an_event_whose_key_cannot_be_read_halts_its_projection(database: str, retries: int) -> None:
    """It can neither be handled nor be set aside with its key."""
    async with prepared(database) as connection:
        await append_events(connection, 30)
        broken = "CASE global_position WHEN 20 THEN (1 / (global_position - 20))::text ELSE aggregate_id END"
        whole = DAMAGED.replace("event_version / (CASE global_position WHEN 20 THEN 0 ELSE 1 END) AS ", "")
        view = whole.replace(
            "aggregate_type, aggregate_id,", f'aggregate_type, ({broken}) COLLATE "C" AS aggregate_id,'
        )
        await connection.execute(view)
        with pytest.RaisesGroup(pytest.RaisesExc(ProjectionFailed), flatten_subgroups=True) as caught:
            await run_until_idle(database, recorder("handled"), retries=retries)
        (failed,) = caught.value.exceptions
        while isinstance(failed, ExceptionGroup):
            (failed,) = failed.exceptions
        said = "projection 'handled' failed at event position 20, and the event cannot be set aside: "
        assert str(failed).startswith(said)
        assert "aggregate_id cannot be read" in str(failed)
        assert await connection.fetchval("SELECT count(*) FROM public.handled") == 19


NO_TEXT = """
UPDATE reactive_orch.events SET aggregate_id = convert_from('\\xe9'::bytea, 'SQL_ASCII') WHERE global_position = 5
"""


@contextlib.asynccontextmanager
async def encoded(cluster: Cluster, encoding: str) -> AsyncIterator[str]:
    """Make a migrated database whose texts are stored in this encoding."""
    name = f"in_{encoding.lower()}"
    async with connected(cluster.url()) as connection:
        await connection.execute(f"CREATE DATABASE {name} TEMPLATE template0 ENCODING '{encoding}' LOCALE 'C'")
    url = cluster.url(name)
    migrate(url)
    try:
        yield url
    finally:
        cluster.drop_database(name)


async def test_a_worker_tells_of_names_where_jsonb_takes_no_escapes(cluster: Cluster) -> None:
    @projection("größe", aggregate_types=["Größe"])
    async def follow(event: Event, tx: object) -> None: ...

    async with (
        encoded(cluster, "SQL_ASCII") as url,
        connected(url) as connection,
        serving(url, follow, heartbeat_s=0.2),
    ):
        await wait_until(lambda: connection.fetchval(TELLS), what="it tells how it stands")


TELLS = "SELECT true FROM reactive_orch.members m WHERE m.account->'projections'->0->>0 = 'größe'"

MIXED = """
INSERT INTO reactive_orch.events
    (aggregate_type, aggregate_id, aggregate_version, event_type, payload, metadata, trace_id)
SELECT 'Key', 'é' || n % 7, n, 'E', convert_to(repeat('p', p), 'UTF8'), jsonb_build_object('m', repeat('ü', m)),
       repeat('ö', t)
FROM unnest($1::integer[], $2::integer[], $3::integer[]) WITH ORDINALITY AS s(p, m, t, n)
"""


@pytest.mark.parametrize("encoding", ["UTF8", thorough("LATIN1")])
@pytest.mark.each_server
async def test_what_is_cut_off_is_known_to_be_cut_off(cluster: Cluster, encoding: str) -> None:
    async with encoded(cluster, encoding) as url:
        await read_in_windows_of_all_sizes(url)


async def test_a_cut_that_is_measured_otherwise_loses_events(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planted, "_put", monkeypatch.setattr)
    planted.plant("cut_off_known_by_payloads_only")
    with pytest.raises(AssertionError, match="every event"):
        await read_in_windows_of_all_sizes(database)


async def read_in_windows_of_all_sizes(url: str) -> None:
    """Long payloads, metadata and texts at random: windows hold as much as they may, and together every event."""
    dice = random.Random(16)
    sizes = [[dice.choice([0, 1, 300, 900, 2500]) for _ in range(400)] for _ in range(3)]
    async with connected(url) as connection:
        await connection.execute(MIXED, *sizes)
        for bytes_max in (1, 1000, 5000, 20_000):
            for scattered in (False, True):
                found = await read_all(connection, 400, bytes_max, scattered=scattered)
                positions = [e.global_position for events in found for e in events]
                assert positions == list(range(1, 401)), "every event"
                for events in found:
                    assert sum(map(held, events[:-1])) < bytes_max * 1.1, "what is before the last one left room"


def held(event: Event) -> int:
    return len(event.payload) + len(event.metadata_json) + len(event.trace_id or "")


async def test_large_metadata_and_texts_are_read_a_few_at_a_time(database: str) -> None:
    """As large payloads are; that they would be small when compressed does not count."""
    megabytes = [1_000_000] * 30
    async with connected(database) as connection:
        await connection.execute(MIXED, [0] * 30, [500_000] * 30, [0] * 30)
        await connection.execute(MIXED.replace("'é' ||", "'other' ||"), [0] * 30, [0] * 30, megabytes)
        found = await read_all(connection, 60, windows.WINDOW_BYTES_MAX, scattered=False)
    assert [len(events) for events in found] == [9, 9, 9, 6, 5, 5, 5, 5, 5, 2]
