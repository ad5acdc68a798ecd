import pytest

from bench.synthetic import row
from f3eo.bench.run.metrics import ACCURACY, TEST_LOSS
from f3eo.bench.statistics.scores import scores


def task(*levels, method="sgd"):
    return [row("wine", method, seed, level) for seed, level in enumerate(levels)]


def test_values_are_in_the_unit_that_is_shown():
    found = scores(task(90.0, 92.0), ACCURACY)
    assert found.values["sgd"] == pytest.approx({0: 90.0, 1: 92.0})
    assert found.means["sgd"] == pytest.approx(91.0) and not found.lost


@pytest.mark.parametrize("metric, floor", [(ACCURACY, 10.0), (TEST_LOSS, 2.7)])
def test_a_run_that_diverged_counts_as_an_untrained_model(metric, floor):
    found = scores(task(90.0, None), metric)
    assert found.floor == pytest.approx(floor) and found.values["sgd"][1] == pytest.approx(floor)
    assert found.lost == {"sgd": [1]}


def test_what_a_lost_run_last_measured_does_not_count():
    kept = row("wine", "sgd", 1, 99.0) | {"status": "diverged"}
    assert scores([*task(90.0), kept], ACCURACY).values["sgd"][1] == pytest.approx(10.0)


def test_a_run_without_any_curve_counts_so_too():
    failed = row("wine", "sgd", 1, None) | {"status": "failed", "curve": None}
    found = scores([*task(90.0), failed], ACCURACY)
    assert found.values["sgd"][1] == pytest.approx(10.0)
    bare = [r | {"curve": None} for r in [*task(90.0, 80.0), row("wine", "sgd", 2, None)]]
    assert scores(bare, ACCURACY).values["sgd"][2] == pytest.approx(80.0)  # the worst there is


@pytest.mark.parametrize("metric, end", [(ACCURACY, 0.02), (TEST_LOSS, 1e9)])
def test_no_run_is_worse_than_an_untrained_model(metric, end):
    bad = row("wine", "sgd", 1, 50.0)
    bad["final"][metric.column] = end
    found = scores([*task(90.0), bad], metric)
    assert found.values["sgd"][1] == pytest.approx(found.floor)


@pytest.mark.parametrize("metric, better", [(ACCURACY, 2.0), (TEST_LOSS, 0.06)])
def test_pairs_are_by_seed_and_positive_where_the_first_is_better(metric, better):
    rows = task(90.0, 91.0, 95.0) + task(93.0, 88.0, method="sam")[::-1]
    found = scores(rows, metric)
    unit = better / 2
    assert found.pairs("sam", "sgd") == pytest.approx([3 * unit, -3 * unit])
    assert found.pairs("sgd", "sam") == pytest.approx([-3 * unit, 3 * unit])
    assert found.pairs("sgd", "muon") == []
    assert list(found.means) == ["sgd", "sam"]


def test_a_fall_does_not_hide_in_a_test_that_the_method_is_worse():
    """Worse by one on every seed, and twice lost; against untrained models t would see 24 ± 35."""
    rows = task(*[90.0 + s / 100 for s in range(6)])
    rows += task(89.0, None, 89.1, 89.2, None, 88.9, method="sam")
    found = scores(rows, ACCURACY)
    assert found.pairs("sgd", "sam")[1] == pytest.approx(80.01)
    expected = [1.0, 1.11, 0.92, 0.83, 1.14, 1.15]  # the worst finished run of the two: 88.9
    assert found.tempered("sgd", "sam") == pytest.approx(expected)
    assert found.tempered("sam", "sgd") == pytest.approx([-d for d in expected])


def test_a_method_that_loses_most_runs_counts_as_untrained_in_a_test_too():
    rows = task(*[90.0] * 4) + task(95.0, None, None, None, method="sam")
    found = scores(rows, ACCURACY)
    assert found.tempered("sgd", "sam") == found.pairs("sgd", "sam")
    assert found.tempered("sgd", "sam") == pytest.approx([-5.0, 80.0, 80.0, 80.0])
