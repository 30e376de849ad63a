"""Three workers under a steady load, a fourth joins, one is killed: who handles how much, and how late events are."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from dataclasses import dataclass
from math import nan
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.figures import median
from bench.load import load, one_key_per_partition
from bench.plots import style
from bench.plots.recorded import BUCKET_S, per_worker
from bench.scene import command_line, connected

if TYPE_CHECKING:
    from datetime import datetime

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from bench.scene import CliWorker, Scene

REPLICA_SET = "rebalance"
EVENTS_PER_S = 320
GOLDEN = 39
"""Of 64, the number that divides it by the golden ratio: its multiples are spread evenly."""
STEADY_S = 2.5
NAMES = ("worker 2", "worker 3", "worker 1", "worker 4")
"""From the bottom to the top: those that stay, the one that is killed, the one that joins."""
COLORS = (style.BLUE, style.TEAL, style.RED, style.ORANGE)
SAYS = {"join": "worker 4 joins", "death": "worker 1 gets SIGKILL"}
READY = "adopted in"
GENERATIONS = """
SELECT reason, extract(epoch FROM created_at - $1)::float8 AS at,
       extract(epoch FROM completed_at - created_at)::float8 * 1000 AS settled_ms, moved
FROM reactive_orch.generations WHERE created_at >= $1 ORDER BY number
"""
DELAYS = """
SELECT floor(extract(epoch FROM created_at - $1) / $2)::integer AS bucket,
       array_agg(extract(epoch FROM at - created_at)::float8 * 1000) AS ms
FROM public.bench_handled WHERE created_at >= $1 GROUP BY bucket ORDER BY bucket
"""


@dataclass(frozen=True, slots=True)
class Change:
    """A generation, in seconds since the picture's left edge."""

    reason: str
    at: float
    settled_ms: float
    moved: int


@dataclass(frozen=True, slots=True)
class Data:
    """What is drawn; the lists have an item for each tenth of a second."""

    events: dict[str, list[int]]
    delays_ms: list[list[float]]
    changes: list[Change]
    killed_at: float


async def measure(scene: Scene) -> Data:
    """Run worker processes as their users do, and write all the time."""
    url = scene.database(events=5000)  # enough for events in all partitions
    async with contextlib.AsyncExitStack() as stack:
        connection = await stack.enter_async_context(connected(url))
        workers = {name: await _started(stack, url) for name in sorted(NAMES)[:3]}
        async with load(url, EVENTS_PER_S, await _keys(connection), synchronous_commit="off"):
            await asyncio.sleep(1)
            began = await _steady(connection, scene)
            workers["worker 4"] = await _started(stack, url)
            await _steady(connection, scene)
            workers["worker 1"].process.kill()
            killed = await _steady(connection, scene)
            ended = await _now(connection)
        names = {f"w{worker.process.pid}": name for name, worker in workers.items()}
        return await _recorded(connection, names, began, killed, ended)


async def _keys(connection: Any) -> list[str]:
    # Neighbours often have the same owner: any few events in a row go to partitions from all over the range.
    keys = await one_key_per_partition(connection)
    return [keys[n * GOLDEN % len(keys)] for n in range(len(keys))]


async def _steady(connection: Any, scene: Scene) -> datetime:
    """Let them work for a while; return when that began."""
    began = await _now(connection)
    await asyncio.sleep(STEADY_S * scene.scale)
    return began


async def _started(stack: contextlib.AsyncExitStack, url: str) -> CliWorker:
    worker = await stack.enter_async_context(command_line(url, REPLICA_SET, ["record"]))
    await worker.said(READY)
    return worker


async def _now(connection: Any) -> datetime:
    now: datetime = await connection.fetchval("SELECT clock_timestamp()")
    return now


async def _recorded(connection: Any, names: dict[str, str], began: datetime, killed: datetime, ended: datetime) -> Data:
    events = await per_worker(connection, began)
    delays = {row["bucket"]: row["ms"] for row in await connection.fetch(DELAYS, began, BUCKET_S)}
    buckets = int((ended - began).total_seconds() / BUCKET_S)
    return Data(
        events={names[worker]: per_bucket[:buckets] for worker, per_bucket in events.items()},
        delays_ms=[delays.get(bucket, [nan]) for bucket in range(buckets)],
        changes=[Change(**row) for row in await connection.fetch(GENERATIONS, began)],
        killed_at=(killed - began).total_seconds(),
    )


def draw(data: Data) -> Figure:
    """Draw who handles how much over time, and how late events are meanwhile."""
    figure = style.page(
        5.6,
        "A worker joins, a worker is killed: the others go on",
        f"Real processes, {EVENTS_PER_S} events per second. Each colour is what one worker handles.",
    )
    (column,) = style.columns(figure)
    share, delay = style.rows(figure, column, [2.2, 1])
    _share(share, data)
    _delay(delay, data)
    for axes in (share, delay):
        axes.set_xlim(0, (len(data.delays_ms) - 1) * BUCKET_S)
    for change in data.changes:
        _mark(share, delay, change, data.killed_at if change.reason == "death" else change.at)
    return figure


def _share(axes: Axes, data: Data) -> None:
    layers = list(itertools.accumulate((np.array(data.events[name]) / BUCKET_S for name in NAMES), np.add))
    for top, color in reversed([*zip(layers, COLORS, strict=True)]):  # the lower ones over the higher ones
        axes.stairs(top, [*_seconds(data), len(top) * BUCKET_S], fill=True, color=color, linewidth=0)
    axes.set_ylim(0, max(1.6 * EVENTS_PER_S, 1.35 * layers[-1].max()))
    axes.tick_params(labelbottom=False)
    axes.set_title("Events handled per second")
    _names(axes, _seconds(data)[-1])


def _names(axes: Axes, end_s: float) -> None:
    """Write the names into the bands: those of the first three at the left, that of the fourth at the right."""
    for name, at, third in zip(NAMES, (0.12, 0.12, 0.12, end_s - 0.12), (0, 1, 2, 2), strict=True):
        align = "right" if name == NAMES[-1] else "left"
        height = EVENTS_PER_S * (third + 0.5) / 3
        axes.text(at, height, name, color="white", weight="bold", ha=align, va="center")


def _delay(axes: Axes, data: Data) -> None:
    worst, middle = [max(ms) for ms in data.delays_ms], [median(ms) for ms in data.delays_ms]
    axes.plot(_seconds(data), worst, color=style.GREY, drawstyle="steps-post", linewidth=1.4, label="worst")
    axes.plot(_seconds(data), middle, color=style.INK, drawstyle="steps-post", linewidth=1.8, label="median")
    style.milliseconds(axes, 1, 1000)
    axes.legend(loc="upper left", ncols=2, frameon=False, labelcolor="linecolor", fontsize=9, borderpad=0)
    axes.set_title("Milliseconds until an event is handled, by when it was written")
    axes.set_xlabel("seconds")


def _seconds(data: Data) -> list[float]:
    return [n * BUCKET_S for n in range(len(data.delays_ms))]


def _mark(share: Axes, delay: Axes, change: Change, cause: float) -> None:
    """Draw a line at the cause and one where the generation is settled, and say what happened."""
    settled = change.at + change.settled_ms / 1000
    for axes in (share, delay):
        axes.axvline(cause, color=style.INK, linewidth=1.2)
        axes.axvline(settled, color=style.INK, linewidth=1.2, linestyle=":")
    text = (
        f"{SAYS[change.reason]}\n{change.moved} of 64 partitions move\nsettled after {(settled - cause) * 1000:.0f} ms"
    )
    share.text(settled + 0.06, share.get_ylim()[1] * 0.97, text, va="top", fontsize=9)
