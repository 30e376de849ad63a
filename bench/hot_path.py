"""Where the time of a batch goes: stage by stage, committed alone and followed at once by the next one.

One lane's statements one after the other on one connection, nothing at the same time, a handler that does nothing. A
lane that catches up goes on at once, and reads the next window on a second connection meanwhile.
"""

from __future__ import annotations

import itertools
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from bench.figures import Goal, Section, median, table
from bench.projections import noop_batch
from bench.scene import connected
from reactive_orch.core.progress import Progress
from reactive_orch.model import OWN_LOG, Filter
from reactive_orch.postgres import checkpoints, log, windows
from reactive_orch.postgres.database import Database

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.scene import Scene
    from reactive_orch.model import Window

BATCHES = (100, 500)
EVENTS = 50_000
PARTITIONS = 64
STAGES = ("read the window", "plan", "BEGIN", "swap", "seal, COMMIT", "note")
SERVER = """
SELECT CASE WHEN query LIKE '%WITH sent AS%' THEN 'swap' WHEN query LIKE '%bytes_before%' THEN 'read the window'
            WHEN query LIKE '%seal_batch%' THEN 'seal, COMMIT' END AS stage, sum(total_exec_time) / sum(calls) AS ms
FROM pg_stat_statements WHERE dbid = (SELECT oid FROM pg_database WHERE datname = current_database()) GROUP BY 1
"""


async def measure(scene: Scene) -> Section:
    """Take turns, alone and going on."""
    rows: list[list[object]] = []
    goals = []
    for batch in BATCHES:
        alone, chained, server = await _turns(scene, batch)
        for n, stage in enumerate(STAGES):
            rows.append(
                [batch, stage, *(f"{_median(part, n):.3f}" for part in (alone, chained)), server.get(stage, "")]
            )
        totals = [median([sum(times) for times in part]) for part in (alone, chained)]
        rows.append([batch, "**sum**", *(f"**{total:.3f}**" for total in totals), ""])
        goals.append(
            Goal(
                f"swap to commit, going on ÷ alone, batch {batch}",
                "< 1",
                f"{_kept(chained) / _kept(alone):.2f}",
                _kept(chained) < _kept(alone),
            )
        )
    text = (__doc__ or "").split("\n\n", 1)[
        1
    ] + "\nMilliseconds, medians; the server's own time by pg_stat_statements.\n\n"
    head = ["batch", "stage", "alone", "followed at once", "of it in the server"]
    return Section("Where the time of a batch goes", text + table(head, rows), goals)


def _median(part: Sequence[Sequence[float]], stage: int) -> float:
    return median([times[stage] for times in part])


def _kept(part: Sequence[Sequence[float]]) -> float:
    return median([sum(times[2:5]) for times in part])


async def _turns(scene: Scene, batch: int) -> tuple[list[list[float]], list[list[float]], dict[str, str]]:
    url = scene.database(events=scene.scaled(EVENTS, 5000))
    parts: dict[bool, list[list[float]]] = {False: [], True: []}
    database = Database(url, label="hot", connections_max=2, handler_timeout_s=60.0)
    await database.open()
    async with connected(url) as connection:
        known = scene.server.version == "15"  # the wheel of 18 comes without extensions
        if known:
            await connection.execute("CREATE EXTENSION pg_stat_statements")
        for turn in range(scene.repeat + 1):
            for goes_on in (False, True):
                times = await _catch_up(database, connection, batch, f"turn_{turn}_{goes_on}", goes_on=goes_on)
                parts[goes_on] += times if turn else []
        server = {row["stage"]: f"{row['ms']:.3f}" for row in await connection.fetch(SERVER)} if known else {}
    await database.close()
    scene.drop(url)
    return parts[False], parts[True], server


async def _catch_up(
    database: Database, connection: Any, batch_events: int, name: str, *, goes_on: bool
) -> list[list[float]]:
    await connection.execute(
        "SELECT reactive_orch.register_projections('hot', $1, '{events}', $2)",
        [name],
        [checkpoints.filter_text(Filter())],
    )
    projection = replace(noop_batch, name=name)
    progress = Progress(batch_events, PARTITIONS)
    progress.take(await checkpoints.load_free(connection, "hot", projection, range(PARTITIONS)))
    head = (await log.observe(connection, OWN_LOG, 0)).head
    times = []
    async with database.processing() as own, checkpoints.Batches(own, "hot", projection.subscription) as batches:
        while (window := progress.window(head, batch_events)) is not None:
            times.append(await _one(progress, own, batches, window, goes_on=goes_on))
    return times


async def _one(
    progress: Progress, own: Any, batches: checkpoints.Batches, window: Window, *, goes_on: bool
) -> list[float]:
    at = [time.perf_counter()]
    events, end, _ = await windows.read_window(own, OWN_LOG, window, Filter())
    at.append(time.perf_counter())
    batch = progress.plan(window, events, end)
    at.append(time.perf_counter())
    async with batches.batch(batch.swaps, lambda: goes_on):
        at += [time.perf_counter() - batches.swap_s, time.perf_counter()]
    at.append(time.perf_counter())
    progress.passed(window, end, batch)
    at.append(time.perf_counter())
    return [(after - before) * 1000 for before, after in itertools.pairwise(at)]
