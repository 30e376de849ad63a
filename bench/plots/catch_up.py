"""A backlog that becomes shorter: by more workers, and beside fresh events."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from matplotlib.ticker import MaxNLocator

from bench import lanes
from bench.figures import median
from bench.fill import INSERT
from bench.plots import style
from bench.plots.recorded import BUCKET_S, per_worker
from bench.projections import WAIT_S
from bench.scene import Child, connected

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from bench.lanes import CaughtUp
    from bench.scene import Scene

EVENTS = 16_000
COLORS = {1: style.GREY, 2: style.TEAL, 4: style.BLUE}
"""By the number of workers."""
BESIDE = 120_000


@dataclass(frozen=True, slots=True)
class Data:
    """What is drawn."""

    left: dict[int, list[int]]
    """Workers → events left after each tenth of a second."""
    beside: CaughtUp


async def measure(scene: Scene) -> Data:
    """Catch up with the same log by more and more workers, then by one with fresh events beside it."""
    left = {workers: await _left(scene, workers, scene.scaled(EVENTS)) for workers in COLORS}
    return Data(left, await lanes.catch_up(scene, scene.scaled(BESIDE)))


async def _left(scene: Scene, workers: int, events: int) -> list[int]:
    url = scene.database()
    async with contextlib.AsyncExitStack() as stack:
        connection = await stack.enter_async_context(connected(url))
        child: dict[str, Any] = {"url": url, "replica_set": "catch_up", "names": ["wait_and_record"]}
        children = [await stack.enter_async_context(Child("workers", **child)) for _ in range(workers)]
        await asyncio.gather(*(child.ask("start") for child in children))
        await connection.execute(INSERT, 0, events)
        committed = await connection.fetchval("SELECT clock_timestamp()")
        while sum([await child.ask("handled") for child in children]) < events:
            await asyncio.sleep(0.05)
        handled = await per_worker(connection, committed)
    scene.drop(url)
    per_bucket = (sum(bucket) for bucket in zip(*handled.values(), strict=True))
    return [events - done for done in itertools.accumulate(per_bucket, initial=0)]


def draw(data: Data) -> Figure:
    """Draw how many are left over time, and what fresh events notice of it."""
    figure = style.page(
        4.9,
        "Catching up with a backlog",
        "Left: more workers, sooner done. Right: new events do not queue behind old ones, which have a lane of their own.",
    )
    left, right = style.columns(figure, [1, 1.3])
    (workers,) = style.rows(figure, left)
    _workers(workers, data.left)
    backlog, fresh = style.rows(figure, right, [1, 1.4])
    _backlog(backlog, data.beside)
    _fresh(fresh, data.beside)
    for axes in (backlog, fresh):
        axes.set_xlim(0, data.beside.left[-1][0] + lanes.ALONE_S)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure


def _workers(axes: Axes, left: dict[int, list[int]]) -> None:
    for workers, events in left.items():
        seconds = [n * BUCKET_S for n in range(len(events))]
        text = f"{workers} worker{'s' * (workers > 1)}: {seconds[-1]:.1f} s"
        axes.plot(seconds, events, color=COLORS[workers], label=text)
    axes.set_xlim(0)
    style.thousands(axes)
    axes.legend(loc="upper right", frameon=False, labelcolor="linecolor")
    axes.set_title(f"Events left; {WAIT_S * 1000:g} ms of waiting per 100 of them")
    axes.set_xlabel("seconds after they were committed")


def _backlog(axes: Axes, run: CaughtUp) -> None:
    seconds, events = zip(*run.left, strict=True)
    axes.fill_between(seconds, events, color=style.GREY, alpha=0.5, linewidth=0)
    style.thousands(axes)
    axes.tick_params(labelbottom=False)
    axes.set_title("Old events left, one worker")


def _fresh(axes: Axes, run: CaughtUp) -> None:
    end = run.left[-1][0]
    style.milliseconds(axes, 0.2, 6000 * end)
    queued = [at for at, _ in run.left[:-1]]
    axes.plot(queued, [(end - at) * 1000 for at in queued], color=style.GREY, linewidth=1.4, linestyle="--")
    axes.text(end * 0.04, 1800 * end, "if they queued behind the old ones", color=style.QUIET, fontsize=9)
    style.dots(axes, run.fresh, style.ORANGE)
    for at, align, alone, when in ((0.02, "left", False, "beside them"), (0.99, "right", True, "alone")):
        text = f"p50 {median(run.delays(alone=alone)):.1f} ms {when}"
        axes.text(at, 0.05, text, transform=axes.transAxes, color=style.ORANGE, weight="bold", ha=align)
    axes.set_title("Milliseconds until a new event is handled")
    axes.set_xlabel("seconds after the first old event")
