"""The assignment alone, no database: time and moves, from few workers to a thousand."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from bench.figures import Section, median, table
from reactive_orch.core.assignment import assign, moved
from reactive_orch.model import OWN_LOG, MemberId, Owners, Subscription

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bench.scene import Scene

CASES = [
    (3, 64, 1),
    (10, 64, 5),
    (50, 64, 5),
    (50, 1024, 5),
    (50, 1024, 10),
    (250, 1024, 10),
    (500, 1024, 10),
    (1000, 1024, 10),
]


async def measure(scene: Scene) -> Section:
    """Time the first assignment, a join, a leave, ten deaths at once."""
    rows = [_row(scene.repeat, *case) for case in CASES]
    head = [
        "workers",
        "partitions",
        "projections",
        "cells",
        "first",
        "join",
        "its moves",
        "least possible",
        "leave",
        "moves",
        "ten die",
        "moves",
        "µs per cell and worker (join)",
    ]
    text = "Milliseconds. Cells: partitions x projections. Least possible: what the joiner must get, rounded down.\n\n"
    return Section("Pure core", text + table(head, rows))


def _row(repeat: int, workers: int, partitions: int, projections: int) -> list[object]:
    cells_of = {Subscription(f"projection_{n}", OWN_LOG): partitions for n in range(projections)}
    runs_all = frozenset(cells_of)
    members = {MemberId(n + 1): runs_all for n in range(workers)}
    joiner = MemberId(workers + 1)
    cases = {
        "join": members | {joiner: runs_all},
        "leave": {member: runs for member, runs in members.items() if member != 1},
        "ten die": {member: runs for member, runs in members.items() if member > min(10, workers - 1)},
    }
    first_ms, before = _timed(repeat, {}, members, cells_of)
    cells: list[object] = [workers, partitions, projections, partitions * projections, f"{first_ms:.2f}"]
    join_ms = 0.0
    for case, changed in cases.items():
        ms, after = _timed(repeat, before, changed, cells_of)
        cells += [f"{ms:.2f}", moved(before, after)]
        if case == "join":
            cells.append(partitions // (workers + 1) * projections)
            join_ms = ms
    cells.append(f"{join_ms * 1000 / (partitions * projections + workers * projections):.2f}")
    return cells


def _timed(
    repeat: int,
    before: Owners,
    members: Mapping[MemberId, frozenset[Subscription]],
    partitions: Mapping[Subscription, int],
) -> tuple[float, Owners]:
    times = []
    for _ in range(max(repeat, 3)):
        began = time.perf_counter()
        after = assign(before, members, partitions)
        times.append((time.perf_counter() - began) * 1000)
    return median(times), after
