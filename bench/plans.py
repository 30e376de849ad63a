"""What the statements read of a large log: fresh, analyzed and vacuumed, keys even and skewed, both kinds of plans."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from bench.figures import Section, table
from bench.scene import ROOT, Scene, Server, connected, migrated
from reactive_orch.core.progress import SPAN_MAX, Progress
from reactive_orch.model import OWN_LOG, Checkpoint
from reactive_orch.postgres import log
from reactive_orch.postgres.statements import load_statements

if TYPE_CHECKING:
    from collections.abc import Iterator

VERSIONS = ("15", "18")
BATCH, PARTITIONS = 100, 64
SHARES = (64, 32, 16, 8, 4, 1)
STATES = {"fresh": "", "vacuumed, analyzed": "VACUUM ANALYZE reactive_orch.events, reactive_orch.checkpoints"}
MODES = ("custom", "generic")
SQL = Path(log.__file__).parent
CHECKPOINTS = """
INSERT INTO reactive_orch.projections (replica_set, name, log, filter, log_identity)
SELECT 'r' || n, 'p', 'events', '{}', reactive_orch.log_identity('events') FROM generate_series(1, 20) AS n;
INSERT INTO reactive_orch.checkpoints (replica_set, projection, log, partition)
SELECT 'r' || n, 'p', 'events', g FROM generate_series(1, 20) AS n, generate_series(0, 63) AS g;
"""
ALL = "{" + ",".join(map(str, range(PARTITIONS))) + "}"
ZEROS, ONES = ("{" + ",".join([digit] * PARTITIONS) + "}" for digit in "01")


class Cost(NamedTuple):
    """What one execution did."""

    found: int
    rows: int
    """Read of the tables, those that filters removed included."""
    buffers: int
    ms: float
    scans: tuple[str, ...]


class Other(NamedTuple):
    """What a statement other than an ordinary window read did."""

    version: str
    statement: str
    cost: Cost


async def measure(scene: Scene) -> Section:
    """Explain the reads of a first window, one in the middle, one at the end; for several shares."""
    windows: list[list[object]] = []
    others: list[Other] = []
    for version in VERSIONS:
        with Server(version) as server:
            for keys in ("even", "skewed"):
                url = migrated(server.create_database(keys))
                await fill(url, scene.events, keys)
                await explain(url, [version, keys], windows, others)
                server.drop_database(keys)
    return section(scene.events, windows, others)


async def fill(url: str, events: int, keys: str) -> None:
    """Write the log, and leave it as it is after a mass import."""
    arguments = [url, str(events), "--raw", *(["--skewed"] if keys == "skewed" else [])]
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "bench.fill", *arguments, cwd=ROOT)
    if await process.wait():
        msg = "the log could not be filled"
        raise RuntimeError(msg)


async def explain(url: str, about: list[str], windows: list[list[object]], others: list[Other]) -> None:
    """Add rows to both tables for one log, in every state."""
    async with connected(url) as connection:
        await connection.execute(CHECKPOINTS)
        end = await connection.fetchval("SELECT max(global_position) FROM reactive_orch.events")
        for state, command in STATES.items():
            if command:
                await connection.execute(command)
            for mode in MODES:
                # As on the program's own connections.
                async with connected(url, plan_cache_mode=f"force_{mode}_plan", jit="off") as reader:
                    row = [*about, state, mode]
                    windows.append([*row, *[await _windows(reader, share, end) for share in SHARES]])
                    others += [Other(about[0], *found) for found in await _others(reader, end)]


def section(events: int, windows: list[list[object]], others: list[Other]) -> Section:
    """Put the tables into words."""
    head = ["PostgreSQL", "keys", "state", "plan"]
    text = (
        f"EXPLAIN (ANALYZE, BUFFERS) of the statements on {events:,} events of some 260 bytes, batch {BATCH}. Fresh: never "
        "analyzed nor vacuumed, as after a mass import. Skewed: a tenth of the keys have two thirds of the events. Custom "
        "and generic: both kinds of plans that a prepared statement can get.\n\n"
        f"Window reads, rows / buffers (table and index) per event found, for a lane that holds so many of {PARTITIONS} "
        "partitions and reads the window it would ask for; the worst of the log's start, middle and end:\n\n"
        + table([*head, *(f"{share} of {PARTITIONS}" for share in SHARES)], windows)
        + "\n\nOther statements, and window reads for a filter that no event passes, as wide as they get "
        f"({min(SPAN_MAX, events):,} positions); the worst of all these logs, states and plans:\n\n"
        + table(["PostgreSQL", "statement", "rows", "buffers", "scans"], _worst(others))
    )
    return Section("Plans", text)


async def _windows(connection: Any, share: int, end: int) -> str:
    costs = []
    for low in (0, end // 2, end - BATCH * PARTITIONS // share):
        name, arguments = window(share, low, end)
        costs.append(await cost(connection, *name.split("."), *arguments))
    rows, buffers = (max(getattr(c, what) / max(c.found, 1) for c in costs) for what in ("rows", "buffers"))
    return f"{rows:.2f} / {buffers:.2f}"


def window(share: int, low: int, end: int) -> tuple[str, tuple[object, ...]]:
    """Return the statement for the window that a lane would ask for, and what it is given."""
    progress = Progress(BATCH, PARTITIONS)
    progress.take(dict.fromkeys(range(0, PARTITIONS, PARTITIONS // share), Checkpoint(low, 0)))
    asked = progress.window(end, BATCH)
    assert asked is not None
    return f"windows.{_statement(scattered=asked.scattered)}", (
        *(OWN_LOG, _array(asked.partitions), asked.low, asked.high),
        *(None, None, None, BATCH, 8 << 20),
    )


def _statement(*, scattered: bool) -> str:
    return "read_scattered" if scattered else "read_dense"


def _array(partitions: tuple[int, ...]) -> str:
    return "{" + ",".join(map(str, partitions)) + "}"


def _worst(others: list[Other]) -> Iterator[list[object]]:
    for version, statement in dict.fromkeys((other.version, other.statement) for other in others):
        costs = [other.cost for other in others if (other.version, other.statement) == (version, statement)]
        rows, buffers = (max(getattr(c, what) for c in costs) for what in ("rows", "buffers"))
        scans = dict.fromkeys(scan for c in costs for scan in c.scans)
        yield [version, statement, f"{rows:,}", f"{buffers:,}", ", ".join(scans)]


async def _others(connection: Any, end: int) -> list[tuple[str, Cost]]:
    return [
        (_label(name, arguments), await cost(connection, *name.split("."), *arguments))
        for name, arguments in statements(end)
    ]


def statements(end: int) -> list[tuple[str, tuple[object, ...]]]:
    """Return the statements other than ordinary window reads, by file and name, with what they are given."""
    found: list[tuple[str, tuple[object, ...]]] = [
        ("log.observe", (OWN_LOG, end)),
        ("log.run_end", (OWN_LOG, end // 2, end, log.RUN_ROWS_MAX)),
        ("windows.read_large", (OWN_LOG, _array(tuple(range(1, end, end // BATCH))), 8 << 20)),
        ("checkpoints.swap", ("r7", "p", OWN_LOG, ALL, ZEROS, ZEROS, ONES, b"", None)),
        ("checkpoints.load_free", ("r7", "p", OWN_LOG, ALL, "{}")),
    ]
    for share in (64, 16, 1):
        partitions = _array(tuple(range(0, PARTITIONS, PARTITIONS // share)))
        arguments = (OWN_LOG, partitions, 0, min(SPAN_MAX, end), "{Nothing}", None, None, BATCH, 8 << 20)
        found.append((f"windows.{_statement(scattered=share < PARTITIONS)}", arguments))
    return found


def _label(name: str, arguments: tuple[object, ...]) -> str:
    return (
        f"{name}, {str(arguments[1]).count(',') + 1} of {PARTITIONS}" if name.endswith(("dense", "scattered")) else name
    )


async def cost(connection: Any, file: str, name: str, *arguments: object) -> Cost:
    """Run a statement, without effect, and return what it did the second time: nothing has to be set up any more."""
    sql = vars(load_statements(SQL / f"{file}.sql"))[name]
    values = ["NULL" if value is None else f"'{value}'" for value in arguments]
    execute = f"EXECUTE statement({', '.join(values)})" if values else "EXECUTE statement"
    transaction = connection.transaction()
    await transaction.start()
    await connection.execute(f"PREPARE statement AS {sql}")
    for _ in range(2):
        answer = await connection.fetchval(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {execute}")
    await connection.execute("DEALLOCATE statement")
    await transaction.rollback()
    return _cost(json.loads(answer)[0])


def _cost(answer: dict[str, Any]) -> Cost:
    root = answer["Plan"]
    reads = [node for node in _nodes(root) if "Relation Name" in node and node["Node Type"] != "ModifyTable"]
    return Cost(
        int(root["Actual Rows"]),
        round(sum(_rows(node) for node in reads)),
        root["Shared Hit Blocks"] + root["Shared Read Blocks"],
        answer["Execution Time"],
        tuple(dict.fromkeys(_scan(node) for node in _nodes(root) if "Relation Name" in node or "Index Name" in node)),
    )


def _nodes(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield node
    for child in node.get("Plans", []):
        yield from _nodes(child)


def _rows(node: dict[str, Any]) -> float:
    removed = node.get("Rows Removed by Filter", 0) + node.get("Rows Removed by Index Recheck", 0)
    return float((node["Actual Rows"] + removed) * node["Actual Loops"])


def _scan(node: dict[str, Any]) -> str:
    return f"{node['Node Type']} {node.get('Index Name') or node['Relation Name']}"
