import math

import pytest

from bench.synthetic import row
from f3eo.bench.run.metrics import ACCURACY, CALIBRATION, INT4_LOST, TEST_LOSS, Metric
from f3eo.bench.statistics.means import complete, finished, means


def test_a_metric_reads_its_column_in_its_unit():
    assert ACCURACY.read({"test_accuracy": 0.5}) == 50.0
    assert TEST_LOSS.read({"test_loss": 0.5}) == 0.5
    for values in (None, {}, {"test_accuracy": None}, {"test_accuracy": math.nan}):
        assert ACCURACY.read(values) is None
    assert ACCURACY.percent and not TEST_LOSS.percent and CALIBRATION.percent


def test_a_metric_may_be_what_was_lost():
    kept = {"clean_accuracy": 0.9, "int4_accuracy": 0.7}
    assert INT4_LOST.read(kept) == pytest.approx(20.0)
    assert INT4_LOST.read({"int4_accuracy": 0.7}) is None
    assert INT4_LOST.read({"clean_accuracy": 0.9}) is None
    assert Metric("a", "a", before="b").read({"a": 1.0, "b": None}) is None


def test_means_are_over_the_runs_that_finished_and_have_the_quantity():
    rows = [row("wine", "sgd", seed, level) for seed, level in enumerate((80.0, 90.0, None))]
    old = row("wine", "sgd", 3, 10.0)
    del old["final"]["int4_accuracy"]
    rows += [old, row("digits-mlp", "sgd", 0, 50.0), row("wine", "f3eo", 0, 50.0)]
    assert finished(rows[:3], lambda task: ACCURACY) == {("wine", "sgd"): [80.0, 90.0]}
    assert finished(rows[:1], lambda task: ACCURACY, "best") == {("wine", "sgd"): [80.0]}
    lost = means(rows, INT4_LOST)
    expected = [INT4_LOST.read(r["final"]) for r in rows[:2]]
    assert lost["wine"]["sgd"] == pytest.approx(sum(expected) / 2)
    assert means(rows, ACCURACY)["wine"]["sgd"] == pytest.approx(60.0)
    assert complete(lost) == ["wine"] and complete({}) == []
