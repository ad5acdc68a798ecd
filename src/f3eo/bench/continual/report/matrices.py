"""Task × task matrices: the score on every stage after every stage, a picture per learner."""

import math
import textwrap
from collections.abc import Mapping
from typing import Any

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
SIDE, GAP, HEAD, LEFT, RIGHT, FOOT = 1.75, 0.14, 0.3, 0.55, 0.85, 0.5
"""In inches: a matrix, what is between two, its title, and the margins."""
LONG = 24
"""The largest number of letters in a line of a title."""
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
    width = LEFT + across * (SIDE + GAP) + RIGHT
    titles = {learner: textwrap.fill(LOOK.label(learner), LONG) for learner in found}
    head = HEAD * max(0.6 + 0.4 * (1 + title.count("\n")) for title in titles.values())
    height = down * (SIDE + head) + FOOT
    with matplotlib.rc_context(SMALL):
        figure = Figure(figsize=(width, height))
        image = None
        for at, (learner, cells) in enumerate(found.items()):
            row, column = divmod(at, across)
            left = LEFT + column * (SIDE + GAP)
            bottom = height - (row + 1) * (SIDE + head)
            axes = figure.add_axes((left / width, bottom / height, SIDE / width, SIDE / height))
            end = len(cells) + 0.5
            image = axes.imshow(
                cells, cmap=shades, vmin=low, vmax=high, interpolation="none",
                extent=(0.5, end, end, 0.5), aspect="auto",
            )  # fmt: skip
            axes.set_title(
                titles[learner], color=LOOK.colour(learner), fontweight="bold", fontsize=9
            )
            axes.spines[:].set_visible(False)
            below = at + across >= len(found)
            axes.tick_params(length=0, labelbottom=below, labelleft=column == 0)
            for axis in (axes.xaxis, axes.yaxis):
                axis.set_major_locator(MaxNLocator(5, integer=True, min_n_ticks=1))
            if len(cells) <= WRITTEN:
                _write(axes, cells, low, high, measure)
            if below:
                axes.set_xlabel("tested on stage")
            if column == 0:
                axes.set_ylabel("after stage")
        _scale(figure, image, measure, height - SIDE - head)
        return svg(figure)


def _scale(figure: Figure, image: Any, measure: Measure, bottom: float) -> None:
    """Draw the colour scale at the right of the first row, `bottom` inches up."""
    width, height = figure.get_size_inches()
    place = ((width - RIGHT + GAP) / width, bottom / height, 0.12 / width, SIDE / height)
    bar = figure.colorbar(image, cax=figure.add_axes(place))
    bar.set_label(f"{measure.name}{measure.unit and f' ({measure.unit.strip()})'}")
    bar.outline.set_visible(False)  # type: ignore[operator]


def _write(axes: Axes, cells: np.ndarray, low: float, high: float, measure: Measure) -> None:
    """Write the scores into the cells, in the ink that stands out."""
    for (i, j), value in np.ndenumerate(cells):
        level = (value - low) / (high - low) if high > low else 1.0
        light = (level if measure.larger_is_better else 1 - level) > 0.55
        text = f"{value:.{1 if measure.larger_is_better else 2}f}"
        axes.text(
            j + 1, i + 1, text, ha="center", va="center", fontsize=7.5,
            color=INK if light else "white",
        )  # fmt: skip
