"""The figures of the report, as SVG images embedded in data URIs."""

import base64
import io
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal

import matplotlib
import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from f3eo.bench.methods import USUAL, colour, label
from f3eo.bench.run.metrics import ACCURACY, TEST_LOSS, TRACE, TRAIN_LOSS, Metric
from f3eo.bench.statistics.welch import interval

INK, PALE = "#374151", "#d1d5db"
GAP = 0.075
"""Least distance of the names at the ends of lines, as a share of the height of the axes."""

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
    "svg.hashsalt": "f3eo",  # the same rows give the same bytes
}


FEW = 10
"""So many lines can be told apart by colour and name."""

AXES = {
    "step": "Steps",
    "seconds": "Training time (seconds)",
    "gradients": "Cost (plain gradients)",
}


def named(methods: Sequence[str]) -> list[str]:
    """Methods whose lines get colour and name: all, or of many the best few and the usual five.

    Args:
        methods: the best first.
    """
    if len(methods) <= FEW:
        return list(methods)
    return [m for i, m in enumerate(methods) if i < FEW // 2 or m in USUAL]


def finals_figure(finals: pl.DataFrame, methods: Sequence[str]) -> str:
    """Where each method ended: a dot per seed, the mean and its 95 % interval."""
    metrics = (ACCURACY, TEST_LOSS, TRACE)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(11, 0.75 + 0.36 * len(methods)), layout="constrained")
        panels = np.atleast_1d(figure.subplots(1, len(metrics), sharey=True))
        for axes, metric in zip(panels, metrics, strict=True):
            scale(axes, metric, "x")
            for place, method in enumerate(reversed(methods)):
                chosen = finals.filter(pl.col("method") == method)[metric.column]
                _dots(axes, place, chosen.to_numpy() * metric.factor, colour(method))
            if len(methods) > FEW:
                _frame(axes, finals, metric)
            axes.set_title(metric.name)
            ticks(axes, "x")
            axes.grid(axis="x")
            axes.spines["left"].set_visible(False)
            axes.tick_params(axis="y", length=0)
            axes.set_ylim(-0.6, len(methods) - 0.4)
        panels[0].set_yticks(range(len(methods)), [label(m) for m in reversed(methods)])
        for text, method in zip(panels[0].get_yticklabels(), reversed(methods), strict=True):
            text.set(color=colour(method), fontweight="bold")
        return _embed(figure)


def curves_figure(curves: pl.DataFrame, methods: Sequence[str]) -> str:
    """Accuracy and losses against steps, seconds and plain gradients, with bands over seeds."""
    metrics = (ACCURACY, TEST_LOSS, TRAIN_LOSS)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(11, 8.4), layout="constrained")
        grid = figure.subplots(len(metrics), len(AXES), sharex="col", sharey="row")
        for row, metric in zip(grid, metrics, strict=True):
            for axes, against in zip(row, AXES, strict=True):
                ends = draw_lines(axes, curves, methods, metric, against)
                if axes is row[-1]:
                    seen = curves.filter(pl.col("method").is_in(named(methods)))
                    focus(axes, seen, metric, bands=len(methods) <= FEW)
                    ticks(axes)
                    label_ends(axes, ends)
            row[0].set_title(metric.name)
        for axes, name in zip(grid[-1], AXES.values(), strict=True):
            axes.set_xlabel(name)
        return _embed(figure)


def trace_figure(curves: pl.DataFrame, methods: Sequence[str]) -> str:
    """Tr F over training against plain gradients, with bands over seeds."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(11, 3.6), layout="constrained")
        axes = figure.subplots()
        ends = draw_lines(axes, curves, methods, TRACE, "gradients")
        ticks(axes)
        label_ends(axes, ends)
        axes.set_title(TRACE.name)
        axes.set_xlabel(AXES["gradients"])
        return _embed(figure)


def _dots(axes: Axes, place: int, values: np.ndarray, shade: str) -> None:
    if not len(values):
        return
    mean, half, _ = interval(values.tolist())
    axes.scatter(values, np.full(len(values), place), s=13, color=shade, alpha=0.3, linewidths=0)
    if np.isfinite(half):
        low = max(mean - half, values.min() / 2) if axes.get_xscale() == "log" else mean - half
        axes.plot([low, mean + half], [place, place], color=shade, linewidth=1.6)
    axes.plot(mean, place, "o", color=shade, markersize=6.5, markeredgecolor="white")


def draw_lines(
    axes: Axes,
    curves: pl.DataFrame,
    methods: Sequence[str],
    metric: Metric,
    against: str,
    banded: Collection[str] | None = None,
) -> dict[str, float]:
    """One line per method, pale without a name; returns where each named one ends.

    Args:
        axes: to draw into.
        curves: as `statistics.curves` gives them.
        methods: the best first.
        metric: the y-axis.
        against: column of the x-axis.
        banded: methods with a band; None, the default: all, or of many none.
    """
    ends, coloured = {}, named(methods)
    if banded is None:  # many bands hide what they belong to
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
        if metric.scale == "log":  # which has no room for what is below zero
            low = np.maximum(low, y / 10)
        if method in banded:
            axes.fill_between(x, low, y + half, color=colour(method), alpha=0.13, linewidth=0)
        axes.plot(x, y, color=colour(method), linewidth=1.5)
        ends[method] = float(y[-1])
    scale(axes, metric)
    axes.grid(axis="y")
    axes.set_xlim(0, float(curves[against].max() or 1.0))  # type: ignore[arg-type]
    axes.xaxis.set_major_locator(MaxNLocator(5))
    return ends


def _frame(axes: Axes, finals: pl.DataFrame, metric: Metric) -> None:
    """Fit the x-axis to the seeds of the better three quarters of many methods, and some room."""
    means = finals.group_by("method").agg(pl.col(metric.column).mean())
    order = means.sort(metric.column, descending=metric.larger_is_better)["method"]
    best = finals.filter(pl.col("method").is_in(order[: -(-3 * len(order) // 4)].to_list()))
    values = best[metric.column].to_numpy() * metric.factor
    low, high = float(values.min()), float(values.max())
    if metric.scale == "log":
        axes.set_xlim(low / 2, high * 2)
    else:
        pad = 0.15 * (high - low) or 1.0
        axes.set_xlim(low - pad, high + pad)


def focus(axes: Axes, curves: pl.DataFrame, metric: Metric, bands: bool) -> None:
    """Fit the y-axis to what happens after the first tenth of training, where methods part."""
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


def scale(axes: Axes, metric: Metric, axis: Literal["x", "y"] = "y") -> None:
    """A log axis where the metric asks for one, with plain numbers."""
    if metric.scale != "log":
        return
    axes.set(**{f"{axis}scale": "log"})
    chosen = axes.xaxis if axis == "x" else axes.yaxis
    chosen.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    chosen.set_minor_formatter(NullFormatter())


def ticks(axes: Axes, axis: Literal["x", "y"] = "y") -> None:
    """Ticks of a log axis at round numbers, at 1, 2, 5 or at powers of ten, as its span asks."""
    chosen = axes.xaxis if axis == "x" else axes.yaxis
    low, high = chosen.get_view_interval()
    if chosen.get_scale() != "log":
        return
    if high / low < 10:
        chosen.set_major_locator(MaxNLocator(4))
    else:
        subs = (1, 2, 5) if high / low < 100 else (1,)
        chosen.set_major_locator(LogLocator(subs=subs, numticks=6))


def label_ends(axes: Axes, ends: Mapping[str, float]) -> None:
    """Name each line at its right end, names pushed apart until none covers another."""
    forward = axes.yaxis.get_transform().transform
    low, high = forward(np.array(axes.get_ylim()))
    order = sorted(ends, key=lambda method: ends[method])
    wanted = [float((forward(np.array([ends[m]]))[0] - low) / (high - low)) for m in order]
    for place, method in zip(spread(wanted, GAP), order, strict=True):
        axes.text(
            1.015,
            place,
            label(method),
            color=colour(method),
            transform=axes.transAxes,
            va="center",
            fontweight="bold",
            fontsize=9,
        )


def spread(wanted: Sequence[float], gap: float) -> list[float]:
    """Ascending places near the wanted ones (ascending, in [0, 1]), at least `gap` apart."""
    wanted = [min(max(place, 0.0), 1.0) for place in wanted]
    up, down = list(wanted), list(wanted)
    for i in range(1, len(wanted)):
        up[i] = max(up[i], up[i - 1] + gap)
        down[-1 - i] = min(down[-1 - i], down[-i] - gap)
    # Both keep the gap, so their mean does, and a crowd spreads evenly about where it was.
    places = [(a + b) / 2 for a, b in zip(up, down, strict=True)]
    ceiling = 1.0
    for i in reversed(range(len(places))):
        places[i] = min(places[i], ceiling)
        ceiling = places[i] - gap
    return places


def drawn(figure: Figure) -> bytes:
    """The figure as SVG."""
    file = io.BytesIO()
    figure.savefig(file, format="svg", metadata={"Date": None})
    return file.getvalue()


def embedded(svg: bytes) -> str:
    """An SVG image as a data URI."""
    return "data:image/svg+xml;base64," + base64.b64encode(svg).decode()


def _embed(figure: Figure) -> str:
    return embedded(drawn(figure))
