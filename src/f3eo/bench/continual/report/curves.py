"""Curves along a stream: scores and structure after each stage, means with bands over seeds."""

from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import Any, NamedTuple

import matplotlib
import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from f3eo.bench.continual.report.measure import Measure
from f3eo.bench.continual.report.names import LOOK, OURS, is_ours
from f3eo.bench.continual.report.quantities import AVERAGE
from f3eo.bench.continual.report.study import Place, StreamStudy
from f3eo.bench.report.drawing import FEW, STYLE, draw_lines, label_ends, set_ticks, svg
from f3eo.bench.run.metrics import Metric
from f3eo.bench.run.row import Row
from f3eo.bench.statistics.student import interval

SMALL: dict[Any, Any] = STYLE | {"svg.fonttype": "none", "font.size": 9}
"""Text stays text: a quarter of the file size, in the reader's own sans-serif font."""

SPARE = 0.2
"""How far bands may widen an axis beyond the lines, as a share of these."""

FIRST = ("f3eo", "sgd", "sam", "stable_sgd")
"""Learners whose lines have colour and name on every picture."""


Line = Sequence[float | None]
"""The numbers of one run, at every point."""


class Series(NamedTuple):
    """A quantity after each stage.

    Attributes:
        name: of the picture.
        title: of its axes.
        read: (row, measure) -> one number for each stage, as shown; None where it does not exist.
        scale: of its axis; default "linear".
    """

    name: str
    title: str
    read: Callable[[Row, Measure], Line]
    scale: Any = "linear"


def _seen(row: Row, measure: Measure) -> list[float]:
    """The average score over the stages seen so far."""
    return [measure.factor * fmean(line[:i]) for i, line in enumerate(row["scores"]) if i]


def _first(row: Row, measure: Measure) -> list[float]:
    """The score of the first stage."""
    return [measure.factor * line[0] for line in row["scores"][1:]]


def _structure(name: str) -> Callable[[Row, Measure], Line]:
    return lambda row, measure: row["structure"].get(name) or ()


SERIES: Sequence[Series] = (
    Series("seen", "Average {score} over the stages seen{unit}", _seen),
    Series("first", "First stage: {score}{unit}", _first),
    Series("trace", "Tr F over the stages seen", _structure("trace"), "log"),
    Series("relative", "Tr(D F D) over the stages seen", _structure("relative_trace"), "log"),
    Series("energy", "Free energy (nats a sample)", _structure("free_energy")),
    Series("complexity", "Complexity (nats a sample)", _structure("complexity")),
)


def coloured(study: StreamStudy, place: Place) -> list[str]:
    """The learners with colour and name: FIRST, then the best by average score, up to FEW.

    Of the latter, learners of F3EO come before others.
    """
    best = list(study.values(place, AVERAGE).means)
    named = [name for name in FIRST if name in best]
    ours = [name for name in best if is_ours(name)]
    return list(dict.fromkeys([*named, *ours[:4], *best]))[:FEW]


def curve_pictures(study: StreamStudy, place: Place) -> dict[str, bytes]:
    """One picture for each of SERIES that has at least two stages at a place, by name."""
    measure, names, drawn = study.measure(place), coloured(study, place), {}
    for series in SERIES:
        lines: dict[str, list[Line]] = {}
        for row in study.places[place]:
            if row["status"] == "finished" and (line := series.read(row, measure)):
                lines.setdefault(row["learner"], []).append(line)
        frame = means(lines, lambda at: at + 1.0)
        if frame.is_empty() or frame["point"].n_unique() < 2:
            continue
        unit = f" ({measure.unit.strip()})" if measure.unit else ""
        metric = Metric("y", series.title.format(score=measure.name, unit=unit), series.scale)
        drawn[series.name] = curve_picture(frame, metric, names)
    return drawn


def curve_picture(frame: pl.DataFrame, metric: Metric, names: Sequence[str]) -> bytes:
    """One line for each learner against the number of stages.

    Args:
        frame: of `means`.
        metric: the quantity, in the column "y".
        names: learners with colour and name.
    """
    learners = frame["method"].unique(maintain_order=True)
    order = sorted(learners, key=lambda name: name == OURS)  # drawn last, on top
    with matplotlib.rc_context(SMALL):
        figure = Figure(figsize=(5.6, 3.1), layout="constrained")
        axes = figure.subplots()
        ends = draw_lines(axes, frame, order, metric, "x", banded=names, coloured=names, look=LOOK)
        fit(axes, frame, metric)
        last = float(frame["x"].max())  # type: ignore[arg-type]
        axes.set_xlim(1, last)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        set_ticks(axes)
        label_ends(axes, ends, LOOK)
        axes.set_title(metric.name)
        axes.set_xlabel("stages trained")
        return svg(figure)


def fit(axes: Axes, frame: pl.DataFrame, metric: Metric) -> None:
    """Fit the y-axis to the lines, and to their bands as far as SPARE.

    With two seeds a band is so wide that it would press all lines into one.

    Args:
        axes: axes to fit.
        frame: of `means`.
        metric: the quantity, in the column "y".
    """
    if metric.scale == "log":  # its axis shows no value ≤ 0
        frame = frame.filter(pl.col("y") > 0)
        if frame.is_empty():
            return
    middle, half = frame["y"].to_numpy(), frame["y_half"].fill_nan(0.0).to_numpy()
    low, high = middle - half, middle + half
    if metric.scale == "log":
        low = np.log10(np.maximum(low, middle / 10))
        middle, high = np.log10(middle), np.log10(high)
    span = float(np.ptp(middle)) or abs(float(middle[0])) or 1.0
    ends = (
        max(float(low.min()), float(middle.min()) - SPARE * span) - 0.03 * span,
        min(float(high.max()), float(middle.max()) + SPARE * span) + 0.03 * span,
    )
    axes.set_ylim(*((10**end for end in ends) if metric.scale == "log" else ends))


def means(lines: Mapping[str, Sequence[Line]], place: Callable[[int], float]) -> pl.DataFrame:
    """The mean over runs and half its 95 % interval, at every point that some run has.

    Args:
        lines: by learner, one sequence of one length for each run.
        place: number of a point, from 0 -> its x-value.

    Returns:
        Columns `method`, `point`, `x`, `y`, `y_half`.
    """
    entries = [
        {"method": learner, "point": at, "x": place(at), "y": found.mean, "y_half": found.half}
        for learner, runs in lines.items()
        for at, column in enumerate(zip(*runs, strict=True))
        if (known := [value for value in column if value is not None])
        for found in [interval(known)]
    ]
    return pl.DataFrame(entries)
