"""What is asked of a database: who handled what, how a replica set stands, and whether all of it is as promised."""

from __future__ import annotations

from typing import TYPE_CHECKING

from integration_test.harness.waiting import TIMEOUT_S, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterable

    import asyncpg

    from integration_test.harness.connections import Connection


async def handled_by(
    connection: Connection, projection: str = "handled", *, replica_set: str = "test"
) -> dict[str, set[int]]:
    """Return worker → the positions it handled."""
    rows = await connection.fetch(_HANDLED_BY, replica_set, projection)
    return {row["worker"]: set(row["positions"]) for row in rows}


_HANDLED_BY = """
SELECT h.worker, array_agg(h.position) AS positions FROM public.handled h
WHERE h.replica_set = $1 AND h.projection = $2 GROUP BY h.worker ORDER BY h.worker
"""


async def wait_all_handle(
    connection: Connection,
    workers: Iterable[str],
    projection: str = "handled",
    *,
    replica_set: str = "test",
    timeout_s: float = TIMEOUT_S,
) -> None:
    """Wait until each of these workers has handled an event that was appended after this call."""
    expected = set(workers)
    end = await connection.fetchval("SELECT coalesce(max(e.global_position), 0) FROM reactive_orch.events e")

    async def all_of_them() -> bool:
        rows = await connection.fetch(_WORKERS_AFTER, replica_set, projection, end)
        return expected <= {row["worker"] for row in rows}

    await wait_until(all_of_them, timeout_s, f"{', '.join(sorted(expected))} handle new events")


_WORKERS_AFTER = """
SELECT DISTINCT h.worker FROM public.handled h WHERE h.replica_set = $1 AND h.projection = $2 AND h.position > $3
"""


async def wait_handled(
    connection: Connection, projection: str = "handled", *, replica_set: str = "test", timeout_s: float = TIMEOUT_S
) -> None:
    """Wait until every event of the log was handled, at least once."""

    async def none_is_missing() -> bool:
        return not await connection.fetchval(_MISSING, replica_set, projection)

    await wait_until(none_is_missing, timeout_s, f"{projection} has handled all events")


_MISSING = """
SELECT count(*) FROM reactive_orch.events e WHERE NOT EXISTS
    (SELECT FROM public.handled h WHERE h.replica_set = $1 AND h.projection = $2 AND h.position = e.global_position)
"""


async def assert_each_once(connection: Connection, projection: str = "handled", *, replica_set: str = "test") -> None:
    """Check that the log and what was handled are the same: nothing lost, nothing twice, no ghosts, no forgeries."""
    wrong = await connection.fetch(NOT_ONCE, replica_set, projection)
    lost = [row["position"] for row in wrong if not row["times"]]
    twice = {row["position"]: row["workers"] for row in wrong if row["times"] > 1}
    ghosts = [row["position"] for row in wrong if not row["committed"]]
    assert not wrong, f"{projection} of {replica_set}: lost {lost}, twice {twice}, ghosts {ghosts}, all: {wrong}"


NOT_ONCE = """
SELECT coalesce(e.global_position, h.position) AS position, count(h.position) AS times,
       e.global_position IS NOT NULL AS committed, array_agg(h.worker ORDER BY h.id) AS workers,
       array_agg(h.txid ORDER BY h.id) AS txids, bool_or(e.global_position <= c.position) AS passed
FROM (reactive_orch.events e LEFT JOIN reactive_orch.checkpoints c
      ON c.replica_set = $1 AND c.projection = $2 AND c.partition = e.partition)
FULL JOIN (SELECT * FROM public.handled WHERE replica_set = $1 AND projection = $2) h ON h.position = e.global_position
GROUP BY e.global_position, h.position
HAVING count(h.position) <> 1 OR e.global_position IS NULL
    OR bool_or((h.key, h.version, h.partition) <> (e.aggregate_id, e.aggregate_version, e.partition))
ORDER BY 1
"""
"""Each event of the log that a projection did not handle exactly once, and what it handled besides; `passed`: its
checkpoint has moved over it."""


async def assert_in_order(connection: Connection) -> None:
    """Check that each projection handled each key's events one after the other, without a gap, by whomever.

    The order is that of `handled.id` (see projections.py); the transactions' ids must agree with it.
    """
    wrong = await connection.fetch(OUT_OF_ORDER)
    assert not wrong, f"out of order: {wrong}"


OUT_OF_ORDER = """
SELECT * FROM (
    SELECT h.*, lag(h.version, 1, 0::bigint) OVER w AS previous, lag(h.position, 1, 0::bigint) OVER w AS after,
           lag(h.txid, 1, 0::bigint) OVER w AS previous_txid
    FROM public.handled h WINDOW w AS (PARTITION BY h.replica_set, h.projection, h.key ORDER BY h.id)) o
WHERE o.version <> o.previous + 1 OR o.position <= o.after OR o.txid < o.previous_txid
ORDER BY o.replica_set, o.projection, o.key, o.id
"""


async def assert_effects_match_checkpoints(connection: Connection, projection: str = "handled") -> None:
    """Check that an event was handled if and only if its partition's checkpoint has passed it and it does not wait."""
    wrong = await connection.fetch(_MISMATCHED, projection)
    assert not wrong, wrong


_MISMATCHED = """
SELECT e.global_position, e.partition, c.position AS checkpoint, count(h.id) AS times
FROM reactive_orch.events e
JOIN reactive_orch.checkpoints c ON c.replica_set = 'test' AND c.projection = $1 AND c.partition = e.partition
LEFT JOIN public.handled h ON h.replica_set = 'test' AND h.projection = $1 AND h.position = e.global_position
LEFT JOIN (SELECT d.position FROM reactive_orch.dead_letters d JOIN reactive_orch.failing_keys k ON k.id = d.key
           WHERE k.replica_set = 'test' AND k.projection = $1) w ON w.position = e.global_position
GROUP BY 1, 2, 3, w.position
HAVING count(h.id) <> (c.position >= e.global_position AND w.position IS NULL)::integer ORDER BY 1
"""


async def wait_accounted(
    connection: Connection, projection: str = "handled", *, replica_set: str = "test", timeout_s: float = TIMEOUT_S
) -> None:
    """Wait until every event of the log was handled, waits behind a failed one, or was left out on request."""

    async def none_is_missing() -> bool:
        return not await connection.fetchval(_UNACCOUNTED, replica_set, projection)

    await wait_until(none_is_missing, timeout_s, f"{projection} has accounted for all events")


async def assert_accounted(connection: Connection, projection: str = "handled", *, replica_set: str = "test") -> None:
    """Check that each event was handled, waits, or was left out: one of them, once, and of a key the last ones wait.

    What was handled of a key was handled in order, without a gap but for what was left out; and a checkpoint counts its
    failing keys and the events that wait with them.
    """
    for statement in (TWICE_ACCOUNTED, OVERTAKEN, MISCOUNTED, OUT_OF_TURN):
        wrong = await connection.fetch(statement, replica_set, projection)
        assert not wrong, f"{projection} of {replica_set}: {wrong}"


_UNACCOUNTED = """
SELECT count(*) FROM reactive_orch.events e WHERE NOT EXISTS
    (SELECT FROM public.fates f WHERE f.replica_set = $1 AND f.projection = $2 AND f.position = e.global_position)
"""

TWICE_ACCOUNTED = """
SELECT coalesce(e.global_position, f.position) AS position, e.aggregate_id, array_agg(f.fate) AS fates
FROM (SELECT e.* FROM reactive_orch.events e JOIN reactive_orch.checkpoints c
      ON c.replica_set = $1 AND c.projection = $2 AND c.partition = e.partition AND c.position >= e.global_position) e
FULL JOIN (SELECT * FROM public.fates WHERE replica_set = $1 AND projection = $2) f ON f.position = e.global_position
GROUP BY 1, 2, e.global_position HAVING count(f.fate) <> 1 OR e.global_position IS NULL ORDER BY 1
"""

OVERTAKEN = """
SELECT min(e.aggregate_id) AS aggregate_id, min(e.global_position) FILTER (WHERE f.fate = 'waits') AS waits,
       max(e.global_position) FILTER (WHERE f.fate <> 'waits') AS passed
FROM public.fates f JOIN reactive_orch.events e ON e.global_position = f.position
WHERE f.replica_set = $1 AND f.projection = $2
GROUP BY e.partition_key,
         CASE WHEN e.partition_key IS NULL THEN (e.bounded_context, e.aggregate_type, e.aggregate_id) END
HAVING min(e.global_position) FILTER (WHERE f.fate = 'waits') < max(e.global_position) FILTER (WHERE f.fate <> 'waits')
"""

MISCOUNTED = """
SELECT c.partition, c.failing, c.waiting, count(DISTINCT k.id) AS keys, count(d.position) AS letters
FROM reactive_orch.checkpoints c LEFT JOIN reactive_orch.failing_keys k
  ON k.replica_set = c.replica_set AND k.projection = c.projection AND k.log = c.log AND k.partition = c.partition
LEFT JOIN reactive_orch.dead_letters d ON d.key = k.id
WHERE c.replica_set = $1 AND c.projection = $2 GROUP BY 1, 2, 3
HAVING c.failing <> count(DISTINCT k.id) OR c.waiting <> count(d.position)
"""

OUT_OF_TURN = """
SELECT * FROM (
    SELECT h.key, h.position, lag(h.position) OVER (PARTITION BY h.key ORDER BY h.id) AS after
    FROM public.handled h WHERE h.replica_set = $1 AND h.projection = $2) o
WHERE o.position <= o.after
"""


async def checked(connection: Connection, *projections: str) -> None:
    """Wait for the end of the log, then check everything."""
    for projection in projections or ("handled",):
        await wait_handled(connection, projection)
        await assert_each_once(connection, projection)
    await assert_in_order(connection)


async def generations(connection: Connection, replica_set: str = "test") -> list[asyncpg.Record]:
    """Return the generations, the oldest first."""
    return await connection.fetch(_GENERATIONS, replica_set)


_GENERATIONS = "SELECT * FROM reactive_orch.generations g WHERE g.replica_set = $1 ORDER BY g.number"


async def backends(connection: Connection, kind: str = "%") -> int:
    """Return how many connections workers have to this database, of one kind or all."""
    return int(await connection.fetchval(_BACKENDS, f"reactive_orch:{kind}:%"))


_BACKENDS = """
SELECT count(*) FROM pg_stat_activity a WHERE a.datname = current_database() AND a.application_name LIKE $1
"""


async def assert_nobody_left(connection: Connection) -> None:
    """Check that after the last worker there are no members, no locks and no connections."""
    assert await connection.fetch("SELECT * FROM reactive_orch.members") == []

    async def gone() -> bool:  # the server needs a moment to notice a closed connection
        return await backends(connection) == 0

    await wait_until(gone, what="no worker is connected")


async def owners(connection: Connection, projection: str = "handled", replica_set: str = "test") -> list[int]:
    """Return the owner of each partition, by index; 0 for nobody, empty without an assignment."""
    return list(await connection.fetchval(_OWNERS, replica_set, projection) or ())


_OWNERS = "SELECT a.owners FROM reactive_orch.assignments a WHERE a.replica_set = $1 AND a.projection = $2"


async def wait_settled(
    connection: Connection, replica_set: str = "test", members: int = 1, timeout_s: float = TIMEOUT_S
) -> asyncpg.Record:
    """Wait until the replica set has this many members, nobody waits or leaves, and its generation is settled.

    Returns the generation's row.
    """

    async def settled() -> asyncpg.Record | None:
        return await connection.fetchrow(SETTLED, replica_set, members)

    return await wait_until(settled, timeout_s, f"{replica_set} is settled with {members} members")


SETTLED = """
SELECT g.* FROM reactive_orch.replica_sets r
JOIN reactive_orch.generations g ON g.replica_set = r.name AND g.number = r.generation
WHERE r.name = $1 AND cardinality(g.members) = $2 AND g.completed_at IS NOT NULL
  AND g.members = ARRAY(SELECT m.id FROM reactive_orch.members m WHERE m.replica_set = r.name ORDER BY m.id)
"""
