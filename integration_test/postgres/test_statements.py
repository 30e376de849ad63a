"""Every statement of every .sql file: the server accepts it, the program uses it, and none reads the whole log."""

from __future__ import annotations

import ast
import asyncio
import contextlib
import json
import re
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import asyncpg
import pytest

import reactive_orch
from integration_test.harness.connections import connected
from integration_test.harness.statements import names_of, parts, refused
from reactive_orch.core.progress import Progress
from reactive_orch.model import OWN_LOG, Checkpoint, Filter, Window
from reactive_orch.postgres import windows

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

    from integration_test.harness.cluster import Cluster

PACKAGE = Path(reactive_orch.__file__).parent
FILES = sorted(path for path in PACKAGE.glob("**/*.sql") if path.parent.name != "schema")
_SEAL = (
    "RESET SESSION AUTHORIZATION",
    "RESET ROLE",
    "SELECT reactive_orch.seal_batch('TRANSACTION', 'TOKEN')",
    "COMMIT",
)
SEVERAL = {
    "roll_back_and_clean": (
        *(
            "ROLLBACK",
            "RESET SESSION AUTHORIZATION",
            "RESET ROLE",
            "RESET ALL",
            "DISCARD TEMP",
            "CLOSE ALL",
            "UNLISTEN *",
        ),
        "SELECT pg_catalog.pg_advisory_unlock_all()",
        "SELECT FROM pg_catalog.pg_prepared_statements p WHERE p.from_sql",
    ),
    "take_back": (
        "ROLLBACK TO SAVEPOINT reactive_orch_sqlalchemy",
        "RELEASE SAVEPOINT reactive_orch_sqlalchemy",
    ),
    "own_role": ("RESET SESSION AUTHORIZATION", "RESET ROLE"),
    "seal": (*_SEAL, "RESET ALL", "DISCARD TEMP"),
    "seal_and_go_on": (*_SEAL, "BEGIN", "RESET ALL", "DISCARD TEMP", "COMMIT", "BEGIN READ WRITE"),
}
"""What is more than one statement, sent without parameters: its parts."""


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
@pytest.mark.each_server
async def test_the_server_accepts(path: Path, database: str) -> None:
    async with connected(database) as connection:
        assert not await refused(connection, path)


def test_what_is_more_than_one_statement_is_known() -> None:
    found = {name: tuple(parts(sql)) for path in FILES for name, sql in names_of(path).items() if len(parts(sql)) != 1}
    assert found == SEVERAL


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_module_beside_the_file_uses_each_of_its_statements(path: Path) -> None:
    tree = ast.parse(path.with_suffix(".py").read_text(encoding="utf-8"))
    used = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "_SQL"
    }
    assert used == names_of(path).keys() or (
        path.stem == "demo" and len(names_of(path)) == 1
    )  # reads it as a user would


ROWS, PARTITIONS, BATCH = 300_000, 64, 100
MIDDLE = ROWS // 2

FILL = """
ALTER TABLE reactive_orch.events SET (autovacuum_enabled = off);
ALTER TABLE reactive_orch.checkpoints SET (autovacuum_enabled = off);

INSERT INTO reactive_orch.events (aggregate_type, aggregate_id, aggregate_version, event_type, payload)
SELECT 'Order', 'a' || n % 3000, 1 + n / 3000, 'Placed', 'payload' FROM generate_series(0, 299999) AS n;

INSERT INTO reactive_orch.projections (replica_set, name, log, filter, log_identity)
SELECT 'r' || n, 'p', 'events', '{}', reactive_orch.log_identity('events') FROM generate_series(1, 99) AS n;
INSERT INTO reactive_orch.checkpoints (replica_set, projection, log, partition)
SELECT 'r' || n, 'p', 'events', g FROM generate_series(1, 99) AS n, generate_series(0, 63) AS g;
"""
BIG = {"events", "checkpoints"}


def run_on(url: str, sql: str) -> None:
    async def run() -> None:
        connection = await asyncpg.connect(url)
        await connection.execute(sql)
        await connection.close()

    asyncio.run(run())


@pytest.fixture(scope="module")
def filled(cluster: Cluster, template: str) -> str:
    """The name of a database with many events, to clone."""
    run_on(cluster.clone_database(template, "filled"), FILL)
    return "filled"


@pytest.fixture(scope="module", params=["no statistics", "analyzed"])
def log(request: pytest.FixtureRequest, cluster: Cluster, filled: str) -> Iterator[str]:
    """The URL of a long log, as it is directly after a mass import, or later."""
    url = cluster.clone_database(filled, "long_log")
    if request.param == "analyzed":
        run_on(url, "VACUUM ANALYZE")
    yield url
    cluster.drop_database("long_log")


class Cost(NamedTuple):
    """What a statement did to one database."""

    scans: list[tuple[str, str]]
    """Each node that reads a table, and the table."""
    rows: int
    """What it read of the big tables, before filters."""
    buffers: int


@pytest.fixture(params=["force_generic_plan", "force_custom_plan"])
async def cost(request: pytest.FixtureRequest, log: str) -> AsyncIterator[Callable[..., Awaitable[Cost]]]:
    """Runs one statement, with its parameters as text, and takes back what it did."""
    connection = await asyncpg.connect(log, server_settings={"plan_cache_mode": request.param, "jit": "off"})

    async def run(file: str, name: str, *arguments: object) -> Cost:
        sql = names_of(PACKAGE / "postgres" / f"{file}.sql")[name]
        parameters = max(map(int, re.findall(r"\$(\d+)", sql)))
        values = ["NULL" if value is None else f"'{value}'" for value in arguments[:parameters]]
        async with rolled_back(connection):
            await connection.execute(f"PREPARE statement AS {sql}")
            explain = f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) EXECUTE statement({', '.join(values)})"
            plan = json.loads(await connection.fetchval(explain))[0]["Plan"]
            await connection.execute("DEALLOCATE statement")
        reads = [
            node for node in nodes(plan) if node.get("Relation Name") in BIG and node["Node Type"] != "ModifyTable"
        ]
        return Cost(
            [(node["Node Type"], node["Relation Name"]) for node in reads],
            sum(map(rows_of, reads)),
            plan["Shared Hit Blocks"] + plan["Shared Read Blocks"],
        )

    yield run
    await connection.close()


@contextlib.asynccontextmanager
async def rolled_back(connection: asyncpg.Connection[asyncpg.Record]) -> AsyncIterator[None]:
    transaction = connection.transaction()
    await transaction.start()
    yield
    await transaction.rollback()


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for inner in plan.get("Plans", []):
        yield from nodes(inner)


def rows_of(node: dict[str, Any]) -> int:
    """How many rows a node has read, those that its filter removed included."""
    removed = node.get("Rows Removed by Filter", 0) + node.get("Rows Removed by Index Recheck", 0)
    return int((node["Actual Rows"] + removed) * node["Actual Loops"] + 0.5)


def check(cost: Cost, rows_max: int) -> None:
    assert cost.scans, "it reads a big table"
    assert not [table for node, table in cost.scans if node == "Seq Scan"]
    assert cost.rows <= rows_max
    assert cost.buffers <= 10 * rows_max + 5 * PARTITIONS


async def test_a_window_reads_no_more_than_two_rows_for_each_event_of_a_batch(
    cost: Callable[..., Awaitable[Cost]],
) -> None:
    wanted = [(None, None), ("{Order}", None), ("{Nothing}", None), (None, "{Placed}"), (None, "{Nothing}")]
    for own, low, (types, event_types) in product([64, 32, 16, 4, 1], [0, MIDDLE, ROWS - 50], wanted):
        progress = Progress(BATCH, PARTITIONS)
        progress.take(dict.fromkeys(range(own), Checkpoint(low, 0)))
        window = progress.window(ROWS, BATCH)
        assert window
        partitions = "{" + ",".join(map(str, window.partitions)) + "}"
        statement = "read_scattered" if window.scattered else "read_dense"
        filters = (types, None, event_types)
        found = await cost("windows", statement, OWN_LOG, partitions, low, window.high, *filters, BATCH, 8_000_000)
        check(found, rows_max=2 * BATCH)
        assert found.buffers <= 4 * own * window.scattered + 2 * BATCH, "index pages of each partition, and rows"


SMALL = """
INSERT INTO reactive_orch.events (aggregate_type, aggregate_id, aggregate_version, event_type, payload)
SELECT CASE n % 3 WHEN 0 THEN 'Order' ELSE 'Customer' END, 'a' || n % 7, n, 'Placed',
       convert_to(repeat('x', n % 90), 'UTF8')
FROM generate_series(1, 400) AS n
"""


@pytest.mark.parametrize("wanted", [Filter(), Filter(("Order",), ("default",), ("Placed",)), Filter(("Nothing",))])
@pytest.mark.each_server
async def test_scattered_or_not_a_window_brings_the_same_events(
    database: str, monkeypatch: pytest.MonkeyPatch, wanted: Filter
) -> None:
    async with connected(database) as connection:
        await connection.execute(SMALL)
        busy = await connection.fetchval("SELECT array_agg(DISTINCT partition) FROM reactive_orch.events")
        some = (tuple(range(PARTITIONS)), tuple(busy[:3]), tuple(busy[:1]), ())
        for partitions, limit, bytes_max in product(some, [1, 10, 1000], [1, 500, 1_000_000]):
            monkeypatch.setattr(windows, "WINDOW_BYTES_MAX", bytes_max)
            window = Window(partitions, 20, 380, limit)
            found = await windows.read_window(connection, OWN_LOG, window, wanted)
            assert found == await windows.read_window(connection, OWN_LOG, replace(window, scattered=True), wanted)
            events = found.events
            assert [e.global_position for e in events] == sorted({e.global_position for e in events})
            assert {e.partition for e in events} <= set(partitions)
            assert bool(events) == bool(partitions and wanted.aggregate_types != ("Nothing",))


STREAM = ("default", "Order", "a7")
TWO = ("{default,default}", "{Order,Order}", "{a7,a8}", "{NULL,NULL}", "{E,E}", "{1,1}", "{a,b}")
ALL = "{" + ",".join(map(str, range(PARTITIONS))) + "}"
LARGE = "{" + ",".join(map(str, range(1, ROWS, ROWS // 100))) + "}"
ZEROS, ONES = ("{" + ",".join([digit] * PARTITIONS) + "}" for digit in "01")


ROWS_MAX: dict[tuple[str, tuple[object, ...]], int] = {
    ("log.run_end", (OWN_LOG, MIDDLE, ROWS, 1000)): 1000,
    ("windows.any_passes", (OWN_LOG, None, None, "{Nothing}", 1000)): 2000,
    ("windows.next_position", (OWN_LOG, MIDDLE, ROWS)): 2,
    ("windows.read_large", (OWN_LOG, LARGE, 8_000_000)): 101,
    ("log.read_stream", (OWN_LOG, *STREAM, 90)): 10,
    ("appending.stream_version", STREAM): 100,  # without statistics PostgreSQL 15 counts through the stream
    ("appending.append", (*TWO, *["{NULL,NULL}"] * 3, '{"{}","{}"}', "{NULL,NULL}", None)): 2,
    ("checkpoints.swap", ("r7", "p", OWN_LOG, ALL, ZEROS, ZEROS, ONES, b"", None)): 2 * PARTITIONS,
    ("checkpoints.load_free", ("r7", "p", OWN_LOG, ALL, "{}")): PARTITIONS,
    ("doctor.log_end", (OWN_LOG,)): 1,
    ("overview.projections", ("r7",)): 5 * PARTITIONS,  # of each the checkpoint, twice, and the first event behind it
}


@pytest.mark.each_server
async def test_no_statement_reads_a_whole_table(cost: Callable[..., Awaitable[Cost]]) -> None:
    for (statement, arguments), rows_max in ROWS_MAX.items():
        check(await cost(*statement.split("."), *arguments), rows_max)
