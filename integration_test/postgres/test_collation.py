"""Keys are found whatever the order that the database's own collation gives to text, today or after an upgrade."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from integration_test.harness.connections import connected
from integration_test.harness.projections import recorder
from reactive_orch import Conflict, Expected, NewEvent, append
from reactive_orch.postgres import membership, migrations

if TYPE_CHECKING:
    from collections.abc import Iterator

    from integration_test.harness.cluster import Cluster
    from integration_test.harness.connections import Connection

pytestmark = pytest.mark.each_server

STREAMS = 100

NOT_C = """
SELECT i.indexrelid::regclass::text, a.attname::text, l.collname::text
FROM pg_index i
CROSS JOIN unnest(i.indkey::smallint[], i.indcollation::oid[]) AS k(attribute, collation_id)
JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attribute
JOIN pg_collation l ON l.oid = k.collation_id
WHERE i.indrelid::regclass::text LIKE 'reactive_orch.%' AND l.collname <> 'C'
"""
COMPARED_NOT_C = """
SELECT a.attrelid::regclass::text, a.attname::text
FROM pg_attribute a JOIN pg_collation l ON l.oid = a.attcollation
WHERE a.attrelid IN ('reactive_orch.events'::regclass, 'reactive_orch.event_log'::regclass) AND l.collname <> 'C'
  AND a.attname NOT IN ('trace_id', 'correlation_id', 'causation_id')
"""


async def test_no_index_depends_on_the_collation_of_the_database(database: str) -> None:
    async with connected(database) as connection:
        assert await connection.fetch(NOT_C) == []
        assert await connection.fetch(COMPARED_NOT_C) == []


@pytest.mark.parametrize("key", ["", "a", "Müller-1", "größer", "日本", "a\u0301", "x" * 500])
async def test_the_partition_of_a_key_is_that_of_its_bytes(database: str, key: str) -> None:
    async with connected(database) as connection:
        plain = "SELECT hashtextextended($1, 0) & 63"
        assert await connection.fetchval(plain, key) == await connection.fetchval(
            'SELECT hashtextextended($1 COLLATE "C", 0) & 63', key
        )


@pytest.fixture
def reordered(cluster: Cluster) -> Iterator[tuple[str, str]]:
    """A database in the order of a language, by the ICU library, and its name. Skips where the server has no ICU."""
    name = "reordered"
    try:
        cluster.create_database(name, "--template=template0", "--locale-provider=icu", "--icu-locale=en-US")
    except RuntimeError as error:
        if "ICU is not supported" not in str(error):
            raise
        pytest.skip("this server was built without ICU")
    yield cluster.url(name), name
    cluster.drop_database(name)


UPGRADES = {
    "datlocale": "UPDATE pg_database SET datlocale = 'en-US-u-kn-true' WHERE datname = $1",
    "daticulocale": "UPDATE pg_database SET daticulocale = 'en-US-u-kn-true' WHERE datname = $1",
}
"""By the name of the column, which has changed in PostgreSQL 17."""


async def _take_an_upgraded_library(connection: Connection, name: str) -> None:
    """Give the database the order in which a number is compared as one: 2 before 10. As after an upgrade: unasked."""
    await connection.execute(
        UPGRADES["datlocale" if connection.get_server_version().major >= 17 else "daticulocale"], name
    )


def _streams() -> list[NewEvent]:
    return [NewEvent(aggregate_type="Order", aggregate_id=f"order-{n}", event_type="Placed") for n in range(STREAMS)]


async def test_streams_and_checkpoints_are_found_after_the_library_has_changed_its_order(
    reordered: tuple[str, str], cluster: Cluster
) -> None:
    url, name = reordered
    projections = [recorder(f"p-{n}") for n in range(STREAMS)]
    async with connected(url) as connection:
        await migrations.migrate(connection, partitions=1)
        for event in _streams():
            await append(connection, [event], Expected.NO_STREAM)
        await membership.register(connection, "r-1", projections)
        before = await connection.fetch("SELECT * FROM reactive_orch.checkpoints ORDER BY ctid")
    async with connected(cluster.url()) as connection:
        await _take_an_upgraded_library(connection, name)
    async with connected(url) as connection:
        assert await connection.fetchval("SELECT 'order-2' < 'order-10'"), "the database's own order is another one"
        begun_again = [event.aggregate_id for event in _streams() if await _begins(connection, event)]
        assert begun_again == []
        await membership.register(connection, "r-1", projections)
        assert await connection.fetch("SELECT * FROM reactive_orch.checkpoints ORDER BY ctid") == before


async def _begins(connection: Connection, event: NewEvent) -> bool:
    try:
        await append(connection, [event], Expected.NO_STREAM)
    except Conflict:
        return False
    return True
