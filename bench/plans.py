"""The plans of the window read on a large log: fresh, analyzed and vacuumed, keys even and skewed."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.figures import Section, table
from bench.scene import ROOT, Scene, Server, connected, migrated
from reactive_orch.postgres import log
from reactive_orch.postgres.database import load_statements

if TYPE_CHECKING:
    from collections.abc import Iterator

VERSIONS = ("15", "18")
LIMIT = 500
READ_WINDOW = load_statements(Path(log.__file__).with_suffix(".sql")).read_window
SHARES = {"all 64": range(64), "16 of 64": range(0, 64, 4), "4 of 64": range(0, 64, 16), "1 of 64": range(1)}


async def measure(scene: Scene) -> Section:
    """Explain the reads of a first window, one in the middle, the last; for several shares."""
    rows: list[list[object]] = []
    for version in VERSIONS:
        with Server(version) as server:
            for keys in ("even", "skewed"):
                url = migrated(server.create_database(keys))
                await _fill(url, scene.events, keys)
                async with connected(url) as connection:
                    for state, command in _STATES.items():
                        if command:
                            await connection.execute(command)
                        rows += [[version, keys, state, *cells] for cells in await _explain(connection)]
                server.drop_database(keys)
    head = ["PostgreSQL", "keys", "state", "share", "window at", "plan", "rows", "buffers", "ms", "buffers per row"]
    text = (
        f"EXPLAIN (ANALYZE, BUFFERS) of the window read on {scene.events:,} events, batch {LIMIT}, windows as a lane of that "
        "share chooses them. Fresh: never analyzed nor vacuumed. Skewed: a tenth of the keys have two thirds of the events.\n\n"
    )
    return Section("Plans", text + table(head, rows))


_STATES = {"fresh": "", "vacuumed and analyzed": "VACUUM ANALYZE reactive_orch.events"}


async def _fill(url: str, events: int, keys: str) -> None:
    arguments = [url, str(events), "--raw", *(["--skewed"] if keys == "skewed" else [])]
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "bench.fill", *arguments, cwd=ROOT)
    if await process.wait():
        msg = "the log could not be filled"
        raise RuntimeError(msg)


async def _explain(connection: Any) -> list[list[object]]:
    rows: list[list[object]] = []
    end = await connection.fetchval("SELECT max(global_position) FROM reactive_orch.events")
    for share, partitions in SHARES.items():
        width = LIMIT * 64 // len(partitions)
        for place, low in (("start", 0), ("middle", end // 2), ("end", max(end - width, 0))):
            # Twice: the second time nothing has to be read from the disk.
            for _ in range(2):
                answer = await connection.fetchval(
                    f"EXPLAIN (ANALYZE, BUFFERS, FORMAT json) {READ_WINDOW}",
                    *(list(partitions), low, low + width, None, None, LIMIT, 8 << 20),
                )
            plan = json.loads(answer)[0]
            root = plan["Plan"]
            buffers = root["Shared Hit Blocks"] + root["Shared Read Blocks"]
            found = root["Actual Rows"]
            rows.append(
                [
                    share,
                    place,
                    " → ".join(_scans(root)),
                    int(found),
                    buffers,
                    f"{plan['Execution Time']:.2f}",
                    f"{buffers / max(found, 1):.2f}",
                ]
            )
    return rows


def _scans(node: dict[str, Any]) -> Iterator[str]:
    if "Scan" in node["Node Type"] and "Subquery" not in node["Node Type"]:
        yield f"{node['Node Type']} {node.get('Index Name', '')}".strip()
    if node["Node Type"] in {"Sort", "Incremental Sort"}:
        yield node["Node Type"]
    for child in node.get("Plans", []):
        yield from _scans(child)
