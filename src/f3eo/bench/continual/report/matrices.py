"""Task × task matrices: the score on every stage after every stage, a picture per learner."""

import math
from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from f3eo.bench.continual.report.curves import SMALL
from f3eo.bench.continual.report.measure import Measure
from f3eo.bench.continual.report.names import LOOK
from f3eo.bench.continual.report.study import Place, StreamStudy
from f3eo.bench.report.drawing import INK, svg

ACROSS = 5
"""Matrices side by side."""
WRITTEN = 5
"""The largest number of stages whose scores are written into the cells."""


def matrices(study: StreamStudy, place: Place) -> dict[str, np.ndarray]:
    """The mean matrix over finished runs, (K, K) as shown, by learner; without row 0."""
    found: dict[str, list[np.ndarray]] = {}
    for row in study.places[place]:
        if row["status"] == "finished":
            found.setdefault(row["learner"], []).append(np.array(row["scores"][1:], dtype=float))
    factor = study.measure(place).factor
    return {name: factor * np.mean(runs, axis=0) for name, runs in found.items()}


def matrix_picture(found: Mapping[str, np.ndarray], measure: Measure) -> bytes:
    """One panel for each learner, on a common scale of a perceptually uniform map.

    Light is good: the map is turned where lower scores are better.

    Args:
        found: by learner, (K, K) scores; row i after i stages, column j on stage j.
        measure: what the stream is scored by.
    """
    low = min(float(np.nanmin(cells)) for cells in found.values())
    high = max(float(np.nanmax(cells)) for cells in found.values())
    shades = matplotlib.colormaps["viridis" if measure.larger_is_better else "viridis_r"]
    across = min(ACROSS, len(found))
    down = math.ceil(len(found) / across)
    with matplotlib.rc_context(SMALL):
        figure = Figure(
            figsize=(0.7 + 2.0 * max(across, 2), 0.5 + 2.05 * down), layout="constrained"
        )
        panels = np.atleast_1d(figure.subplots(down, across, sharex=True, sharey=True)).ravel()
        for axes in panels[len(found) :]:
            axes.set_visible(False)
        image = None
        for at, (axes, (learner, cells)) in enumerate(zip(panels, found.items(), strict=False)):
            count = len(cells)
            edge = (0.5, count + 0.5)
            image = axes.imshow(
                cells, cmap=shades, vmin=low, vmax=high, interpolation="none",
                extent=(*edge, *edge[::-1]),
            )  # fmt: skip
            axes.set_title(LOOK.label(learner), color=LOOK.colour(learner), fontweight="bold")
            axes.tick_params(length=0)
            axes.spines[:].set_visible(False)
            for axis in (axes.xaxis, axes.yaxis):
                axis.set_major_locator(MaxNLocator(5, integer=True, min_n_ticks=1))
            if count <= WRITTEN:
                _write(axes, cells, low, high, measure)
            below = at + across >= len(found)
            axes.tick_params(labelbottom=below)
            if below:
                axes.set_xlabel("tested on stage")
            if at % across == 0:
                axes.set_ylabel("after stage")
        if image is not None:
            name = f"{measure.name}{measure.unit and f' ({measure.unit.strip()})'}"
            bar = figure.colorbar(image, ax=list(panels), shrink=min(0.9, 1.6 / down), aspect=24)
            bar.set_label(name)
            bar.outline.set_visible(False)  # type: ignore[operator]
        return svg(figure)


def _write(
    axes: Axes, cells: Sequence[Sequence[float]], low: float, high: float, measure: Measure
) -> None:
    """Write the scores into the cells, in the ink that stands out."""
    for (i, j), value in np.ndenumerate(cells):
        level = (value - low) / (high - low) if high > low else 1.0
        light = (level if measure.larger_is_better else 1 - level) > 0.55
        text = f"{value:.{1 if measure.larger_is_better else 2}f}"
        axes.text(
            j + 1, i + 1, text, ha="center", va="center", fontsize=7.5,
            color=INK if light else "white",
        )  # fmt: skip
