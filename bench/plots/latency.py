"""From COMMIT to the handler and to its effects, as cumulative distributions beside the floor."""

from __future__ import annotations

from typing import TYPE_CHECKING

from matplotlib.ticker import FixedLocator, FuncFormatter, PercentFormatter

from bench.figures import median, percentile
from bench.latency import EVENTS_PER_S, turns
from bench.plots import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from bench.scene import Scene

CURVES = {
    "floor": (style.GREY, "floor: bare LISTEN + SELECT"),
    "called": (style.BLUE, "handler called"),
    "committed": (style.ORANGE, "effects committed"),
}
SHARES = [n / 200 for n in range(200)] + [0.9975, 0.999, 1.0]
"""Points of a curve: more would only make the file larger."""
TICKS_MS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200)


async def measure(scene: Scene) -> dict[str, list[float]]:
    """Return the milliseconds of all turns."""
    return {name: [ms for turn in parts for ms in turn] for name, parts in (await turns(scene)).items()}


def draw(delays: dict[str, list[float]]) -> Figure:
    """Draw the distributions."""
    figure = style.page(
        4.6,
        "From an event's COMMIT to the code that reacts to it",
        f"One idle worker, {EVENTS_PER_S} events per second. The further left and the steeper, the better.",
    )
    (column,) = style.columns(figure, below_in=1.3)
    (axes,) = style.rows(figure, column)
    for name, (color, text) in CURVES.items():
        _curve(axes, delays[name], color, text)
    _scales(axes, delays)
    axes.legend(loc="lower left", bbox_to_anchor=(-0.01, 1), ncols=3, frameon=False, labelcolor="linecolor")
    return figure


def _curve(axes: Axes, values: list[float], color: str, text: str) -> None:
    middle, late = median(values), percentile(values, 0.99)
    label = f"{text}\np50 {middle:.2f} ms, p99 {late:.1f} ms"
    axes.plot([percentile(values, share) for share in SHARES], SHARES, color=color, label=label)
    axes.plot([middle, late], [0.5, 0.99], "o", color=color, markersize=5)


def _scales(axes: Axes, delays: dict[str, list[float]]) -> None:
    axes.set_xscale("log")
    axes.set_xlim(
        0.8 * percentile(delays["floor"], 0.001), 1.5 * max(percentile(delays[name], 0.999) for name in CURVES)
    )
    axes.xaxis.set_major_locator(FixedLocator(TICKS_MS))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda ms, _: f"{ms:g}"))
    axes.xaxis.set_minor_locator(FixedLocator([]))
    axes.set_ylim(0, 1.02)
    axes.set_yticks([0, 0.25, 0.5, 0.75, 0.99])
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.set_xlabel("milliseconds after COMMIT was sent, logarithmic")
    axes.set_ylabel("events handled by then")
