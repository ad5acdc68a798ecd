"""The points of the curves, by hand, and which lines are coloured."""

import math

import polars as pl
import pytest
from matplotlib.figure import Figure
from scipy import stats

from bench.continual.report.made_up import LEVELS, row, study
from f3eo.bench.continual.report.adaptation import points
from f3eo.bench.continual.report.curves import SERIES, coloured, fit, means
from f3eo.bench.continual.report.measure import MEASURES
from f3eo.bench.continual.report.study import Place, StreamStudy
from f3eo.bench.report.drawing import FEW
from f3eo.bench.run.metrics import Metric

SCORES = [[0.1, 0.1, 0.2], [0.9, 0.2, 0.3], [0.7, 0.8, 0.4], [0.6, 0.5, 1.0]]
READ = {series.name: series.read for series in SERIES}
PLACE = Place("permuted-mnist", "steps")


def test_scores_along_the_stream():
    made = row("permuted-mnist", "sgd", 0, stages=3, scores=SCORES)
    assert READ["seen"](made, MEASURES["accuracy"]) == pytest.approx([90.0, 75.0, 70.0])
    assert READ["first"](made, MEASURES["accuracy"]) == pytest.approx([90.0, 70.0, 60.0])
    assert READ["seen"](made, MEASURES["error"]) == pytest.approx([0.9, 0.75, 0.7])


@pytest.mark.parametrize(
    ("series", "entry"),
    [("trace", "trace"), ("relative", "relative_trace"), ("energy", "free_energy")],
)
def test_the_structure_along_the_stream(series, entry):
    made = row("permuted-mnist", "sgd", 0)
    assert READ[series](made, MEASURES["accuracy"]) == made["structure"][entry]


def test_means_and_bands_by_hand_without_what_does_not_exist():
    frame = means({"sgd": [[1.0, 4.0, None], [3.0, None, None]]}, lambda at: at + 1.0)
    assert frame["x"].to_list() == [1.0, 2.0]
    assert frame["y"].to_list() == [2.0, 4.0]
    first, second = frame["y_half"].to_list()
    assert first == pytest.approx(stats.t.ppf(0.975, 1) * math.sqrt(2) / math.sqrt(2))
    assert math.isnan(second)


def test_f3eo_its_bases_and_the_best_have_colour():
    names = coloured(StreamStudy("all", study(("permuted-mnist",), stages=3)), PLACE)
    assert len(names) == FEW < len(LEVELS)
    assert names[:4] == ["f3eo", "sgd", "sam", "stable_sgd"]
    assert {"f3eo_memory", "f3eo_stable", "f3eo_elastic", "replay_sam"} <= set(names)
    peers = [name for name in LEVELS if not name.startswith("f3eo")]
    last = [row("permuted-mnist", name, 0) for name in peers]
    last.append(row("permuted-mnist", "f3eo_elastic", 0, learnt=0.2))
    assert len(last) > FEW and "f3eo_elastic" in coloured(StreamStudy("last", last), PLACE)
    few = StreamStudy("few", study(("permuted-mnist",), ("agem", "sgd"), stages=3))
    assert coloured(few, PLACE) == ["sgd", "agem"]


def test_lines_of_unseen_tasks_need_every_point():
    rows = [row("permuted-mnist", name, 0, stages=2) for name in ("sgd", "sam")]
    rows[1]["unseen"] = rows[1]["unseen"][:2]  # after one stage only
    made = StreamStudy("two", rows)
    frame = points(made, PLACE, [(1, None, 0), (2, None, 0)])
    assert frame["method"].unique().to_list() == ["sgd"]
    # 0.3 + 0.4 · 0.9 · share of the stages − 4 · 0.02, and 0.01 in the mean of two tasks
    assert frame["y"].to_list() == pytest.approx([41.0, 59.0])


@pytest.mark.parametrize("scale", ["linear", "log"])
def test_wide_bands_do_not_press_the_lines_together(scale):
    axes = Figure().subplots()
    axes.set_yscale(scale)
    frame = pl.DataFrame({"y": [0.0, 1.0, 10.0], "y_half": [0.0, 0.01, 1000.0]})
    if scale == "linear":
        frame = frame[1:]
    fit(axes, frame, Metric("y", "", scale))
    low, high = axes.get_ylim()
    # a fifth of the distance between the lines at most, and a margin of 3 % of it
    if scale == "linear":
        assert (low, high) == pytest.approx((1 - 0.23 * 9, 10 + 0.23 * 9))
    else:
        assert (math.log10(low), math.log10(high)) == pytest.approx(
            (-0.03 + math.log10(0.99), 1.23)
        )


def test_narrow_bands_fit_whole():
    axes = Figure().subplots()
    fit(axes, pl.DataFrame({"y": [1.0, 2.0], "y_half": [0.1, 0.2]}), Metric("y", ""))
    assert axes.get_ylim() == pytest.approx((0.9 - 0.03, 2.2 + 0.03))
