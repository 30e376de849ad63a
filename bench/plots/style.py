"""How all pictures look, and how they are saved."""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch
from matplotlib.path import Path
from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

if TYPE_CHECKING:
    import pathlib
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.gridspec import SubplotSpec

INK, QUIET, FAINT, PAPER = "#1f2933", "#66727f", "#e3e7eb", "#fbfcfd"
BLUE, TEAL, ORANGE, RED, GREY = "#2f6fb5", "#3d9fa8", "#e8963d", "#c8453b", "#9aa5b1"
WIDTH_IN = 9.0

mpl.rcParams.update(
    {
        "svg.hashsalt": "reactive_orch",  # else identifiers, and with them the whole file, would differ each time
        "svg.fonttype": "none",  # text stays text: it can be found, read aloud, and takes a third of the room
        "font.sans-serif": ["DejaVu Sans", "Verdana", "Arial"],  # the first comes with matplotlib, the next is as wide
        "font.size": 10,
        "text.color": INK,
        "axes.edgecolor": GREY,
        "axes.facecolor": PAPER,
        "axes.labelcolor": QUIET,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": FAINT,
        "xtick.color": QUIET,
        "ytick.color": QUIET,
        "xtick.labelsize": 9,
        "ytick.labelsize": 9,
        "axes.labelsize": 9,
        "axes.titlesize": 10,
        "axes.titlelocation": "left",
        "figure.facecolor": PAPER,  # its own, so that it can be read on GitHub's dark pages too
        "lines.linewidth": 2.2,
    }
)


def page(height_in: float, title: str, says: str) -> Figure:
    """Return an empty figure with a title and a line below it that says what there is to see."""
    figure = Figure(figsize=(WIDTH_IN, height_in), layout=None)
    _write_from_top(figure, 0.14, title, size=14, weight="bold")
    _write_from_top(figure, 0.46, says, size=10, color=QUIET)
    return figure


def _write_from_top(figure: Figure, inches: float, text: str, **how: Any) -> None:
    figure.text(0.02, 1 - inches / figure.get_figheight(), text, va="top", **how)


def columns(figure: Figure, widths: Sequence[float] = (1,), *, below_in: float = 1.15) -> list[SubplotSpec]:
    """Divide the page, from so much below its upper edge, by the ratios of their widths."""
    height = figure.get_figheight()
    edges = {"left": 0.08, "right": 0.975, "top": 1 - below_in / height, "bottom": 0.85 / height}
    grid = figure.add_gridspec(1, len(widths), width_ratios=widths, wspace=0.2, **edges)
    return [grid[0, n] for n in range(len(widths))]


def rows(figure: Figure, column: SubplotSpec, heights: Sequence[float] = (1,)) -> list[Axes]:
    """Divide a column, by the ratios of their heights."""
    grid = column.subgridspec(len(heights), 1, height_ratios=heights, hspace=0.3)
    return [figure.add_subplot(grid[n, 0]) for n in range(len(heights))]


def dots(axes: Axes, points: Sequence[tuple[float, float]], color: str) -> None:
    """Draw dots as one path, of strokes so short that only their round caps are seen: as elements they fill the file."""
    ends = [end for x, y in points for end in ((x, y), (x + 0.01, y))]
    path = Path(ends, [Path.MOVETO, Path.LINETO] * len(points))
    path.should_simplify = False
    axes.add_patch(PathPatch(path, edgecolor=color, linewidth=2.6, capstyle="round", fill=False, snap=False))


def milliseconds(axes: Axes, least: float, most: float) -> None:
    """Make the y axis logarithmic, with plain numbers."""
    axes.set_yscale("log")
    axes.set_ylim(least, most)
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:,g}"))
    axes.yaxis.set_major_locator(LogLocator(numticks=10))
    axes.yaxis.set_minor_locator(NullLocator())


def thousands(axes: Axes) -> None:
    """Begin the y axis at 0 and write 20,000 for 20000."""
    axes.set_ylim(0)
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))


def save(figure: Figure, file: pathlib.Path, machine: str) -> None:
    """Write it as SVG, with what it was measured on below it; the same data make the same bytes."""
    figure.text(0.02, 0.14 / figure.get_figheight(), machine, size=8, color=QUIET)
    drawn = io.StringIO()
    figure.savefig(drawn, format="svg", metadata={"Date": None, "Creator": None})
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(_TAG.sub(_rounded, drawn.getvalue()), encoding="utf-8")


def _rounded(tag: re.Match[str]) -> str:
    """Cut coordinates to a tenth of a point: more nobody sees, but it is a third of the file."""
    return _FRACTION.sub(r"\1", tag[0])


_TAG = re.compile("<[^>]+>")  # figures in the text between tags stay as they are
_FRACTION = re.compile(r"(\.\d)\d+")
