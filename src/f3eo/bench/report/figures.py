"""The pictures of a study, as SVG."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from f3eo.bench.methods import colour, label
from f3eo.bench.report.plots import INK, PALE, STYLE, draw_lines, drawn, focus, label_ends, ticks
from f3eo.bench.run.metrics import Metric
from f3eo.bench.statistics.goals import OURS
from f3eo.bench.statistics.profiles import LIMIT, Ratios, integrated, share
from f3eo.bench.statistics.ranks import Ranks

LEAN: dict[Any, Any] = STYLE | {"svg.fonttype": "none"}
"""Text as text: a quarter of the size, set in the reader's own sans serif."""

Grid = Mapping[tuple[float, float], float]
"""The mean score by (learning rate, weight); nan if every run was lost."""

SMALL: dict[Any, Any] = LEAN | {"font.size": 9}


def curve_figure(
    curves: pl.DataFrame, methods: Sequence[str], metric: Metric, unit: str, target: float | None
) -> bytes:
    """The score against nominal time; bands for ours and the best of the others.

    Args:
        curves: of one task, as `statistics.curves` gives them, with a column `nominal`.
        methods: the best first.
        metric: what the task is scored by.
        unit: of the time.
        target: value of the score drawn as a line; None for none.
    """
    rivals = [method for method in methods if method != OURS]
    with matplotlib.rc_context(SMALL):
        figure = Figure(figsize=(5.6, 3.1), layout="constrained")
        axes = figure.subplots()
        ends = draw_lines(axes, curves, methods, metric, "nominal", banded=[OURS, *rivals[:1]])
        best = curves.filter(pl.col("method").is_in(list(methods[: max(3, len(methods) // 2)])))
        late = best.filter(pl.col("point") > pl.col("point").max() / 4)
        focus(axes, late, metric, bands=False)
        ticks(axes)
        if target is not None:
            axes.axhline(target, color=INK, linewidth=0.7, linestyle=(0, (4, 3)), zorder=0)
        label_ends(axes, ends)
        axes.set_title(metric.name)
        axes.set_xlabel(f"Nominal training time ({unit})")
        return drawn(figure)


def ranks_figure(ranks: Ranks) -> bytes:
    """Average ranks on a line, names at the sides, bars over those that cannot be told apart."""
    order = list(ranks.average)
    left, right = order[: (len(order) + 1) // 2], order[(len(order) + 1) // 2 :][::-1]
    bars = ranks.groups
    top = 0.55 + 0.3 * len(bars)
    with matplotlib.rc_context(LEAN):
        figure = Figure(figsize=(9.4, 0.95 + 0.27 * len(left) + 0.13 * len(bars)))
        axes = figure.add_axes((0.22, 0.02, 0.58, 0.9))
        axes.set(xlim=(1, len(order)), ylim=(top + 0.62 * len(left), -1.5))
        axes.axis("off")
        axes.plot([1, len(order)], [0, 0], color=INK, linewidth=0.9, clip_on=False)
        for number in range(1, len(order) + 1):
            axes.plot([number] * 2, [0, -0.25], color=INK, linewidth=0.9, clip_on=False)
            axes.text(number, -0.4, str(number), ha="center", va="bottom", color=INK)
        for names, side in ((left, 0.0), (right, 1.0)):
            for place, name in enumerate(names):
                _name(axes, name, ranks.average[name], top + 0.62 * place, side)
        for place, names in enumerate(bars):
            ends = [ranks.average[names[0]] - 0.06, ranks.average[names[-1]] + 0.06]
            axes.plot(ends, [0.38 + 0.3 * place] * 2, color=INK, linewidth=3, clip_on=False)
        if math.isfinite(ranks.critical):
            width = min(ranks.critical, len(order) - 1)
            axes.plot([1, 1 + width], [-1.3] * 2, color="#6b7280", linewidth=1.2, clip_on=False)
            text = f"critical difference {ranks.critical:.2f}"
            axes.text(1 + width + 0.1, -1.3, text, va="center", color="#6b7280")
        return drawn(figure)


def profile_figure(ratios: Ratios) -> bytes:
    """ρ(τ), the share of tasks on which a method takes at most τ times as long as the fastest."""
    order = sorted(ratios, key=lambda method: -integrated(ratios[method]))
    ends = {}
    with matplotlib.rc_context(LEAN):
        figure = Figure(figsize=(9.4, 3.9), layout="constrained")
        axes = figure.subplots()
        for method in reversed(order):
            steps = sorted({1.0, LIMIT, *(r for r in ratios[method] if 1 <= r <= LIMIT)})
            heights = [100 * share(ratios[method], tau) for tau in steps]
            width = 2.6 if method == OURS else 1.4
            axes.step(steps, heights, where="post", color=colour(method), linewidth=width)
            ends[method] = heights[-1]
        axes.set(xlim=(1, LIMIT), ylim=(-2, 102))
        axes.grid(axis="y")
        axes.set_title("Tasks on which the target is reached (%)")
        axes.set_xlabel("within τ times the time of the fastest method")
        label_ends(axes, ends)
        return drawn(figure)


def sensitivity_figure(grids: Mapping[tuple[str, str], Grid], metric: Metric) -> bytes:
    """A heat map per rule, one colour scale for all: the mean score by learning rate and weight.

    Args:
        grids: by rule and kind of weight.
        metric: of the score.
    """
    found = [v for grid in grids.values() for v in grid.values() if math.isfinite(v)]
    low, high = (min(found), max(found)) if found else (0.0, 1.0)
    shades = matplotlib.colormaps["RdPu" if metric.larger_is_better else "RdPu_r"]
    with matplotlib.rc_context(SMALL):
        figure = Figure(figsize=(10.5, 3.3), layout="constrained")
        panels = np.atleast_1d(figure.subplots(1, max(3, len(grids))))
        for axes in panels[len(grids) :]:
            axes.set_visible(False)
        for axes, ((rule, weight), grid) in zip(panels, grids.items(), strict=False):
            rates = sorted({rate for rate, _ in grid})
            weights = sorted({weight for _, weight in grid})
            cells = np.array([[grid.get((r, w), math.nan) for w in weights] for r in rates])
            edges = np.arange(len(weights) + 1) - 0.5, np.arange(len(rates) + 1) - 0.5
            axes.pcolormesh(*edges, cells, cmap=shades, vmin=low, vmax=high)
            for (i, j), value in np.ndenumerate(cells):
                lost = not math.isfinite(value)
                level = 0.0 if lost or high == low else (value - low) / (high - low)
                dark = level > 0.6 if metric.larger_is_better else level < 0.4
                absent = (rates[i], weights[j]) not in grid
                text = "" if absent else "×" if lost else f"{value:.{1 + 2 * (high < 10)}f}"
                shade = "white" if dark and not lost else INK
                axes.text(j, i, text, ha="center", va="center", fontsize=8, color=shade)
            axes.set_xticks(range(len(weights)), [f"{w:g}" for w in weights])
            axes.set_yticks(range(len(rates)), [f"{r:g}" for r in rates])
            axes.tick_params(length=0)
            axes.spines[:].set_visible(False)
            axes.set_title(rule)
            axes.set_xlabel(f"weight ({weight})")
        panels[0].set_ylabel("learning rate")
        return drawn(figure)


def records_figure(table: Mapping[str, tuple[int, int, int]]) -> bytes:
    """A bar per rival: tasks on which ours is better, level and worse.

    Args:
        table: (better, level, worse) by rival.
    """
    with matplotlib.rc_context(LEAN):
        figure = Figure(figsize=(9.4, 0.75 + 0.3 * len(table)), layout="constrained")
        axes = figure.subplots()
        names = list(table)[::-1]
        start = np.zeros(len(names))
        for part, shade, ink in (
            (0, colour(OURS), "white"),
            (1, "#e5e7eb", INK),
            (2, INK, "white"),
        ):
            width = np.array([table[name][part] for name in names], dtype=float)
            axes.barh(range(len(names)), width, left=start, color=shade, height=0.7)
            for place, (a, w) in enumerate(zip(start, width, strict=True)):
                if w:
                    axes.text(a + w / 2, place, f"{w:.0f}", ha="center", va="center", color=ink)
            start += width
        axes.set_yticks(range(len(names)), [label(name) for name in names])
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("tasks")
        axes.set_xlim(0, max(start.max(), 1) if len(start) else 1)
        return drawn(figure)


def _name(axes: Axes, method: str, at: float, height: float, side: float) -> None:
    """A line down from the rank to the height of the name, and along to it."""
    low, high = axes.get_xlim()
    edge = low - 0.03 * (high - low) if side == 0 else high + 0.03 * (high - low)
    shade = colour(method) if method == OURS else PALE
    axes.plot(
        [at, at, edge], [0, height, height], color=shade, linewidth=1, clip_on=False, zorder=0
    )
    text = f"{label(method)}  {at:.2f}" if side == 0 else f"{at:.2f}  {label(method)}"
    axes.text(
        edge + (-0.1 if side == 0 else 0.1),
        height,
        text,
        ha="right" if side == 0 else "left",
        va="center",
        color=colour(method),
        fontweight="bold",
    )
