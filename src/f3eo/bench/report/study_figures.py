"""The figures of a study's page, as SVG: curves, ranks, profiles, heat maps, records."""

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
from f3eo.bench.report.drawing import (
    INK,
    PALE,
    STYLE,
    draw_lines,
    fit_y,
    label_ends,
    set_ticks,
    svg,
)
from f3eo.bench.run.metrics import Metric
from f3eo.bench.statistics.goals import OURS
from f3eo.bench.statistics.profiles import LIMIT, Ratios, profile_score, share
from f3eo.bench.statistics.ranks import Ranks

LEAN: dict[Any, Any] = STYLE | {"svg.fonttype": "none"}
"""Text stays text: a quarter of the file size, in the reader's own sans-serif font."""

SMALL: dict[Any, Any] = LEAN | {"font.size": 9}

Grid = Mapping[tuple[float, float], float]
"""The mean score by (learning rate, strength); nan if every run was lost."""


def curve_figure(
    curves: pl.DataFrame, methods: Sequence[str], metric: Metric, unit: str, target: float | None
) -> bytes:
    """The score against nominal time, with bands for OURS and the best rival.

    Args:
        curves: mean curves of one task, from `statistics.frames.curves`, with a column `nominal`.
        methods: the best first.
        metric: score of the task.
        unit: unit of the nominal time.
        target: target score, drawn as a dashed line; None draws none.
    """
    rivals = [method for method in methods if method != OURS]
    with matplotlib.rc_context(SMALL):
        figure = Figure(figsize=(5.6, 3.1), layout="constrained")
        axes = figure.subplots()
        ends = draw_lines(axes, curves, methods, metric, "nominal", banded=[OURS, *rivals[:1]])
        best = curves.filter(pl.col("method").is_in(list(methods[: max(3, len(methods) // 2)])))
        late = best.filter(pl.col("point") > pl.col("point").max() / 4)
        fit_y(axes, late, metric, bands=False)
        set_ticks(axes)
        if target is not None:
            axes.axhline(target, color=INK, linewidth=0.7, linestyle=(0, (4, 3)), zorder=0)
        label_ends(axes, ends)
        axes.set_title(metric.name)
        axes.set_xlabel(f"Nominal training time ({unit})")
        return svg(figure)


def ranks_figure(ranks: Ranks) -> bytes:
    """Average ranks on a line; bars join methods within the critical difference."""
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
                _name_rank(axes, name, ranks.average[name], top + 0.62 * place, side)
        for place, names in enumerate(bars):
            ends = [ranks.average[names[0]] - 0.06, ranks.average[names[-1]] + 0.06]
            axes.plot(ends, [0.38 + 0.3 * place] * 2, color=INK, linewidth=3, clip_on=False)
        if math.isfinite(ranks.critical):
            width = min(ranks.critical, len(order) - 1)
            axes.plot([1, 1 + width], [-1.3] * 2, color="#6b7280", linewidth=1.2, clip_on=False)
            text = f"critical difference {ranks.critical:.2f}"
            axes.text(1 + width + 0.1, -1.3, text, va="center", color="#6b7280")
        return svg(figure)


def profile_figure(ratios: Ratios) -> bytes:
    """ρ(τ) of every method: the share of tasks solved within τ times the fastest time."""
    order = sorted(ratios, key=lambda method: -profile_score(ratios[method]))
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
        return svg(figure)


def sensitivity_figure(grids: Mapping[tuple[str, str], Grid], metric: Metric) -> bytes:
    """One heat map per rule, on a common colour scale: mean score by learning rate and strength.

    Args:
        grids: by rule and kind of strength.
        metric: score of the task.
    """
    scores = [v for grid in grids.values() for v in grid.values() if math.isfinite(v)]
    low, high = (min(scores), max(scores)) if scores else (0.0, 1.0)
    shades = matplotlib.colormaps["RdPu" if metric.larger_is_better else "RdPu_r"]
    with matplotlib.rc_context(SMALL):
        figure = Figure(figsize=(10.5, 3.3), layout="constrained")
        panels = np.atleast_1d(figure.subplots(1, max(3, len(grids))))
        for axes in panels[len(grids) :]:
            axes.set_visible(False)
        for axes, ((rule, kind), grid) in zip(panels, grids.items(), strict=False):
            rates = sorted({rate for rate, _ in grid})
            strengths = sorted({strength for _, strength in grid})
            cells = np.array([[grid.get((r, s), math.nan) for s in strengths] for r in rates])
            edges = np.arange(len(strengths) + 1) - 0.5, np.arange(len(rates) + 1) - 0.5
            axes.pcolormesh(*edges, cells, cmap=shades, vmin=low, vmax=high)
            for (i, j), value in np.ndenumerate(cells):
                lost = not math.isfinite(value)
                level = 0.0 if lost or high == low else (value - low) / (high - low)
                dark = level > 0.6 if metric.larger_is_better else level < 0.4
                absent = (rates[i], strengths[j]) not in grid
                text = "" if absent else "×" if lost else f"{value:.{1 + 2 * (high < 10)}f}"
                shade = "white" if dark and not lost else INK
                axes.text(j, i, text, ha="center", va="center", fontsize=8, color=shade)
            axes.set_xticks(range(len(strengths)), [f"{s:g}" for s in strengths])
            axes.set_yticks(range(len(rates)), [f"{r:g}" for r in rates])
            axes.tick_params(length=0)
            axes.spines[:].set_visible(False)
            axes.set_title(rule)
            axes.set_xlabel(f"strength ({kind})")
        panels[0].set_ylabel("learning rate")
        return svg(figure)


def records_figure(table: Mapping[str, tuple[int, int, int]]) -> bytes:
    """One bar per rival: the numbers of tasks on which OURS is better, level and worse.

    Args:
        table: numbers of tasks (better, level, worse), by rival.
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
        return svg(figure)


def _name_rank(axes: Axes, method: str, at: float, height: float, side: float) -> None:
    """Draw a line from a rank down to `height` and out to the method's name.

    Args:
        axes: receives line and name.
        method: name of the method.
        at: its average rank.
        height: y-value of its name.
        side: 0 places the name on the left, 1 on the right.
    """
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
