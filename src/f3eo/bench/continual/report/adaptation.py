"""Zero-step and few-step adaptation: the score on unseen tasks, as a picture."""

from collections.abc import Sequence

import matplotlib
import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from f3eo.bench.continual.report.curves import SMALL, coloured, fit, means
from f3eo.bench.continual.report.names import LOOK, OURS
from f3eo.bench.continual.report.quantities import adapted, shown
from f3eo.bench.continual.report.study import Place, StreamStudy
from f3eo.bench.continual.report.tables import unseen_axes
from f3eo.bench.report.drawing import draw_lines, label_ends, svg
from f3eo.bench.run.metrics import Metric


def adaptation_picture(study: StreamStudy, place: Place) -> bytes | None:
    """Scores before a step against the stages trained, and after the last stage against steps.

    Returns:
        None where no row has unseen tasks.
    """
    afters, steps, shots = unseen_axes(study, place)
    if not afters:
        return None
    names, measure = coloured(study, place), study.measure(place)
    panels: list[tuple[str, str, list[str], pl.DataFrame]] = []
    if len(afters) > 1:
        frame = points(study, place, [(n, None, 0) for n in afters])
        panels.append(("Before a step", "stages trained", [f"{n}" for n in afters], frame))
    for shot in shots:
        frame = points(study, place, [(afters[-1], shot, step) for step in steps])
        title = "All training samples" if shot is None else f"{shot} samples per class"
        panels.append((title, "steps on the unseen task", [f"{s}" for s in steps], frame))
    with matplotlib.rc_context(SMALL):
        figure = Figure(figsize=(0.9 + 3.2 * len(panels), 3.1), layout="constrained")
        every = np.atleast_1d(figure.subplots(1, len(panels), sharey=True))
        for axes, (title, across, ticks, frame) in zip(every, panels, strict=True):
            ends = _draw(axes, frame, study.at(place), names)
            axes.set_title(title)
            axes.set_xlabel(across)
            axes.set_xticks(range(len(ticks)), ticks)
            axes.set_xlim(-0.05 * (len(ticks) - 1), len(ticks) - 1)
            if axes is every[-1]:
                label_ends(axes, ends, LOOK)
        every_line = pl.concat([frame for *_, frame in panels])
        if not every_line.is_empty():
            fit(every[0], every_line, Metric("y", ""))
        unit = f" ({measure.unit.strip()})" if measure.unit else ""
        every[0].set_ylabel(f"{measure.name} on unseen tasks{unit}")
        return svg(figure)


def points(
    study: StreamStudy, place: Place, at: Sequence[tuple[int, int | None, int]]
) -> pl.DataFrame:
    """Mean curves over finished runs that have every point; see `curves.means`.

    Args:
        study: the results.
        place: stream and budget.
        at: the points, each (stages trained before, shots, steps on the unseen task).
    """
    measure = study.measure(place)
    lines: dict[str, list[list[float]]] = {}
    for row in study.places[place]:
        if row["status"] != "finished":
            continue
        line = [shown(adapted(row, *point), measure) for point in at]
        known = [value for value in line if value is not None]
        if len(known) == len(line):
            lines.setdefault(row["learner"], []).append(known)
    return means(lines, float)


def _draw(
    axes: Axes, frame: pl.DataFrame, learners: Sequence[str], names: Sequence[str]
) -> dict[str, float]:
    if frame.is_empty():
        return {}
    order = sorted(learners, key=lambda name: name == OURS)  # drawn last, on top
    metric = Metric("y", "")
    ends = draw_lines(axes, frame, order, metric, "x", banded=names, coloured=names, look=LOOK)
    return ends
