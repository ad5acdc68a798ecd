"""Drawing shared by the figures of all reports: style, curves, axes, labels, SVG output."""

import base64
import io
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from f3eo.bench.methods import USUAL, colour, label
from f3eo.bench.run.metrics import Metric

INK, PALE = "#374151", "#d1d5db"
GAP = 0.075
"""Least distance between the names at the ends of lines, as a share of the axes' height."""

STYLE: dict[Any, Any] = {
    "font.size": 9.5,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": "#9ca3af",
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10.5,
    "axes.titlelocation": "left",
    "xtick.color": "#6b7280",
    "ytick.color": "#6b7280",
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.minor.width": 0.4,
    "ytick.minor.width": 0.4,
    "grid.color": "#eceef1",
    "grid.linewidth": 0.8,
    "axes.axisbelow": True,
    "svg.hashsalt": "f3eo",  # equal rows give equal bytes
}

FEW = 10
"""The largest number of lines that colour and name still distinguish."""


class Look(NamedTuple):
    """How what is compared is called and coloured.

    Attributes:
        label: name -> its label; default that of a method.
        colour: name -> #rrggbb; default that of a method.
    """

    label: Callable[[str], str] = label
    colour: Callable[[str], str] = colour


OF_METHODS = Look()
"""The look of the methods of comparisons and studies."""


def highlighted(methods: Sequence[str]) -> list[str]:
    """The methods whose lines get a colour and a name.

    All of them up to FEW; above that the FEW / 2 best and those of USUAL.

    Args:
        methods: the best first.
    """
    if len(methods) <= FEW:
        return list(methods)
    return [m for i, m in enumerate(methods) if i < FEW // 2 or m in USUAL]


def draw_lines(
    axes: Axes,
    curves: pl.DataFrame,
    methods: Sequence[str],
    metric: Metric,
    against: str,
    banded: Collection[str] | None = None,
    coloured: Collection[str] | None = None,
    look: Look = OF_METHODS,
) -> dict[str, float]:
    """Draw one line per method: highlighted methods in colour, the others pale.

    Args:
        axes: receives the lines.
        curves: mean curves from `statistics.frames.curves`.
        methods: the best first.
        metric: quantity on the y-axis.
        against: column on the x-axis.
        banded: methods drawn with their 95 % band; None, the default, means all methods up to
            FEW, else none.
        coloured: methods that are highlighted; None, the default, means those of `highlighted`.
        look: labels and colours; default those of methods.

    Returns:
        The last y-value of each highlighted method.
    """
    ends = {}
    coloured = highlighted(methods) if coloured is None else coloured
    if banded is None:  # many bands would hide the lines
        banded = methods if len(methods) <= FEW else ()
    for method in methods:
        line = curves.filter(pl.col("method") == method).sort("point")
        if line.is_empty():
            continue
        x = line[against].to_numpy()
        y = line[metric.column].to_numpy() * metric.factor
        if method not in coloured:
            axes.plot(x, y, color=PALE, linewidth=0.9, zorder=1)
            continue
        half = line[f"{metric.column}_half"].fill_null(0.0).fill_nan(0.0).to_numpy() * metric.factor
        low = y - half
        if metric.scale == "log":  # a log axis shows no value ≤ 0
            low = np.maximum(low, y / 10)
        if method in banded:
            axes.fill_between(x, low, y + half, color=look.colour(method), alpha=0.13, linewidth=0)
        axes.plot(x, y, color=look.colour(method), linewidth=1.5)
        ends[method] = float(y[-1])
    set_scale(axes, metric)
    axes.grid(axis="y")
    axes.set_xlim(0, float(curves[against].max() or 1.0))  # type: ignore[arg-type]
    axes.xaxis.set_major_locator(MaxNLocator(5))
    return ends


def fit_y(axes: Axes, curves: pl.DataFrame, metric: Metric, bands: bool) -> None:
    """Fit the y-axis to the curves after the first tenth of training, where methods differ.

    Args:
        axes: axes to fit.
        curves: mean curves from `statistics.frames.curves`.
        metric: quantity on the y-axis.
        bands: whether the bands must fit, too.
    """
    later = curves.filter(pl.col("point") > pl.col("point").max() / 10)
    middle, half = later[metric.column], later[f"{metric.column}_half"].fill_null(0).fill_nan(0)
    half = half if bands else 0 * half
    low = float((middle - half).min() or 0.0) * metric.factor  # type: ignore[arg-type]
    high = float((middle + half).max() or 1.0) * metric.factor  # type: ignore[arg-type]
    if metric.scale == "log":
        low = max(low, float(middle.min() or 1e-9) / 2)  # type: ignore[arg-type]
        axes.set_ylim(low / 1.1, high * 1.1)
    else:
        pad = 0.04 * (high - low) or 1.0
        axes.set_ylim(low - pad, high + pad)


def set_scale(axes: Axes, metric: Metric, axis: Literal["x", "y"] = "y") -> None:
    """Make an axis logarithmic if the metric has a log scale; its numbers have no exponents."""
    if metric.scale != "log":
        return
    axes.set(**{f"{axis}scale": "log"})
    scaled = axes.xaxis if axis == "x" else axes.yaxis
    scaled.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    scaled.set_minor_formatter(NullFormatter())


def set_ticks(axes: Axes, axis: Literal["x", "y"] = "y") -> None:
    """Set the ticks of a log axis by its span: round numbers, 1-2-5, or powers of ten."""
    ticked = axes.xaxis if axis == "x" else axes.yaxis
    low, high = ticked.get_view_interval()
    if ticked.get_scale() != "log":
        return
    if high / low < 10:
        ticked.set_major_locator(MaxNLocator(4))
    else:
        subs = (1, 2, 5) if high / low < 100 else (1,)
        ticked.set_major_locator(LogLocator(subs=subs, numticks=6))


def label_ends(axes: Axes, ends: Mapping[str, float], look: Look = OF_METHODS) -> None:
    """Write the name of each line at its right end, without overlaps.

    Args:
        axes: receives the names.
        ends: last y-value by method.
        look: labels and colours; default those of methods.
    """
    forward = axes.yaxis.get_transform().transform
    low, high = forward(np.array(axes.get_ylim()))
    order = sorted(ends, key=lambda method: ends[method])
    heights = [float((forward(np.array([ends[m]]))[0] - low) / (high - low)) for m in order]
    for place, method in zip(separated(heights, GAP), order, strict=True):
        axes.text(
            1.015,
            place,
            look.label(method),
            color=look.colour(method),
            transform=axes.transAxes,
            va="center",
            fontweight="bold",
            fontsize=9,
        )


def separated(heights: Sequence[float], gap: float) -> list[float]:
    """Ascending places near the given heights, at least `gap` apart and at most 1.

    Args:
        heights: ascending; clipped to [0, 1].
        gap: least distance.
    """
    heights = [min(max(height, 0.0), 1.0) for height in heights]
    up, down = list(heights), list(heights)
    for i in range(1, len(heights)):
        up[i] = max(up[i], up[i - 1] + gap)
        down[-1 - i] = min(down[-1 - i], down[-i] - gap)
    # Both keep the gap, so their mean keeps it, and a cluster stays centred.
    places = [(a + b) / 2 for a, b in zip(up, down, strict=True)]
    ceiling = 1.0
    for i in reversed(range(len(places))):
        places[i] = min(places[i], ceiling)
        ceiling = places[i] - gap
    return places


def svg(figure: Figure) -> bytes:
    """The figure as an SVG file."""
    file = io.BytesIO()
    figure.savefig(file, format="svg", metadata={"Date": None})
    return file.getvalue()


def data_uri(svg: bytes) -> str:
    """An SVG image as a data URI."""
    return "data:image/svg+xml;base64," + base64.b64encode(svg).decode()
