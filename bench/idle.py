"""What an idle worker asks of the server."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from bench.figures import Goal, Section, table
from bench.scene import command_line, connected

if TYPE_CHECKING:
    from bench.scene import Scene

HEARTBEAT_S = 2.0
MEASURED_S = 30
CALLS = "SELECT query, calls FROM pg_stat_statements s JOIN pg_database d ON d.oid = s.dbid WHERE d.datname = current_database()"


async def measure(scene: Scene) -> Section:
    """Count statements, transactions that write, and WAL."""
    url = scene.database()
    seconds = scene.scaled(MEASURED_S, 5)
    async with connected(url) as connection, command_line(url, "idle", ["noop_batch"]) as worker:
        await worker.said("adopted in")
        by_statement = scene.server.version == "15"
        if by_statement:
            await connection.execute("CREATE EXTENSION IF NOT EXISTS pg_stat_statements")
        await asyncio.sleep(6)  # what it does once, after the start
        before = await _look(connection, statements=by_statement)
        await asyncio.sleep(seconds)
        after = await _look(connection, statements=by_statement)
    per_s = (after["calls"] - before["calls"]) / seconds
    writing = (after["xid"] - before["xid"]) / seconds
    wal = (after["lsn"] - before["lsn"]) / seconds
    rows = [
        [f"`{' '.join(text.split())[:90]}`", f"{(count - before['by'].get(text, 0)) / seconds:.2f}"]
        for text, count in sorted(after["by"].items(), key=lambda item: -item[1])
        if count > before["by"].get(text, 0) and "pg_stat_statements" not in text
    ]
    how = "pg_stat_statements" if by_statement else "pg_stat_database (transactions)"
    text = (
        f"One worker, one projection, {seconds} s, counted by {how}: {per_s:.2f} statements/s, "
        f"{writing:.2f} transactions/s that write (heartbeats: {1 / HEARTBEAT_S:.2f}), {wal:.0f} bytes of WAL/s."
    )
    if rows:
        text += "\n\n" + table(["statement", "per second"], rows)
    goals = [
        Goal("idle worker: statements/s", "≤ 2", f"{per_s:.2f}", per_s <= 2),
        Goal(
            "idle worker: transactions/s that write, heartbeats aside",
            "0",
            f"{max(writing - 1 / HEARTBEAT_S, 0):.2f}",
            writing <= 1 / HEARTBEAT_S * 1.1,
        ),
    ]
    return Section("Idle", text, goals)


async def _look(connection: Any, *, statements: bool) -> dict[str, Any]:
    """Return the counters; this connection's own statements are left out."""
    row = await connection.fetchrow(
        "SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint AS xid, pg_current_wal_lsn() - '0/0'::pg_lsn AS lsn,"
        " xact_commit FROM pg_stat_database WHERE datname = current_database()"
    )
    # "SELECT $1" is no statement of anybody: the planner folds the immutable function lock_namespace() by running it.
    by = (
        {r["query"]: r["calls"] for r in await connection.fetch(CALLS) if r["query"] != "SELECT $1"}
        if statements
        else {}
    )
    ours = sum(calls for text, calls in by.items() if "pg_stat_statements" in text or "pg_current_wal_lsn" in text)
    calls = sum(by.values()) - ours if statements else row["xact_commit"]
    return {"calls": calls, "xid": row["xid"], "lsn": int(row["lsn"]), "by": by}
