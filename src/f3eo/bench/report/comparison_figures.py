"""The figures of a comparison's page, as SVG: final values, learning curves, Tr F."""

from collections.abc import Sequence

import matplotlib
import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from f3eo.bench.methods import colour, label
from f3eo.bench.report.drawing import (
    FEW,
    STYLE,
    draw_lines,
    fit_y,
    highlighted,
    label_ends,
    set_scale,
    set_ticks,
    svg,
)
from f3eo.bench.run.metrics import ACCURACY, TEST_LOSS, TRACE, TRAIN_LOSS, Metric
from f3eo.bench.statistics.student import interval

AXES = {
    "step": "Steps",
    "seconds": "Training time (seconds)",
    "gradients": "Cost (plain gradients)",
}
"""Labels of the x-axis, by column."""


def finals_figure(finals: pl.DataFrame, methods: Sequence[str]) -> bytes:
    """The final values of each method: a dot per seed, the mean and its 95 % interval.

    Args:
        finals: the finished runs of one task, from `statistics.frames.finals`.
        methods: the best first.
    """
    metrics = (ACCURACY, TEST_LOSS, TRACE)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(11, 0.75 + 0.36 * len(methods)), layout="constrained")
        panels = np.atleast_1d(figure.subplots(1, len(metrics), sharey=True))
        for axes, metric in zip(panels, metrics, strict=True):
            set_scale(axes, metric, "x")
            for place, method in enumerate(reversed(methods)):
                values = finals.filter(pl.col("method") == method)[metric.column]
                _draw_dots(axes, place, values.to_numpy() * metric.factor, colour(method))
            if len(methods) > FEW:
                _fit_x(axes, finals, metric)
            axes.set_title(metric.name)
            set_ticks(axes, "x")
            axes.grid(axis="x")
            axes.spines["left"].set_visible(False)
            axes.tick_params(axis="y", length=0)
            axes.set_ylim(-0.6, len(methods) - 0.4)
        panels[0].set_yticks(range(len(methods)), [label(m) for m in reversed(methods)])
        for text, method in zip(panels[0].get_yticklabels(), reversed(methods), strict=True):
            text.set(color=colour(method), fontweight="bold")
        return svg(figure)


def curves_figure(curves: pl.DataFrame, methods: Sequence[str]) -> bytes:
    """Accuracy and losses against steps, seconds and plain gradients, with bands over seeds.

    Args:
        curves: of one task, from `statistics.frames.curves`.
        methods: the best first.
    """
    metrics = (ACCURACY, TEST_LOSS, TRAIN_LOSS)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(11, 8.4), layout="constrained")
        grid = figure.subplots(len(metrics), len(AXES), sharex="col", sharey="row")
        for row, metric in zip(grid, metrics, strict=True):
            for axes, against in zip(row, AXES, strict=True):
                ends = draw_lines(axes, curves, methods, metric, against)
                if axes is row[-1]:
                    shown = curves.filter(pl.col("method").is_in(highlighted(methods)))
                    fit_y(axes, shown, metric, bands=len(methods) <= FEW)
                    set_ticks(axes)
                    label_ends(axes, ends)
            row[0].set_title(metric.name)
        for axes, name in zip(grid[-1], AXES.values(), strict=True):
            axes.set_xlabel(name)
        return svg(figure)


def trace_figure(curves: pl.DataFrame, methods: Sequence[str]) -> bytes:
    """Tr F against plain gradients, with bands over seeds; arguments as in `curves_figure`."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(11, 3.6), layout="constrained")
        axes = figure.subplots()
        ends = draw_lines(axes, curves, methods, TRACE, "gradients")
        set_ticks(axes)
        label_ends(axes, ends)
        axes.set_title(TRACE.name)
        axes.set_xlabel(AXES["gradients"])
        return svg(figure)


def _draw_dots(axes: Axes, place: int, values: np.ndarray, shade: str) -> None:
    if not len(values):
        return
    mean, half, _ = interval(values.tolist())
    axes.scatter(values, np.full(len(values), place), s=13, color=shade, alpha=0.3, linewidths=0)
    if np.isfinite(half):
        low = max(mean - half, values.min() / 2) if axes.get_xscale() == "log" else mean - half
        axes.plot([low, mean + half], [place, place], color=shade, linewidth=1.6)
    axes.plot(mean, place, "o", color=shade, markersize=6.5, markeredgecolor="white")


def _fit_x(axes: Axes, finals: pl.DataFrame, metric: Metric) -> None:
    """Fit the x-axis to the seeds of the best three quarters of the methods, with a margin."""
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
