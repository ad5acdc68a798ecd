import math

import numpy as np
import pytest
from scipy import stats

from bench.synthetic import LEVELS, TASKS, results, row
from f3eo.bench.run.metrics import ACCURACY
from f3eo.bench.statistics.bootstrap import Range
from f3eo.bench.statistics.paired import Paired, corrected, difference, paired_p
from f3eo.bench.statistics.scores import scores
from f3eo.bench.statistics.significance import holm


def test_holm_by_hand():
    """Holm (1979): .01 · 4 = .04, .02 · 3 = .06, then .03 · 2 and .04 · 1 may not fall."""
    assert holm([0.03, 0.01, 0.04, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0] and holm([]) == []


def test_the_paired_t_by_hand():
    """Mean 3, s = √2.5, t = 3 / √(2.5 / 5) = 4.2426 with 4 degrees of freedom: p = 0.01324."""
    assert paired_p([1.0, 2.0, 3.0, 4.0, 5.0]) == pytest.approx(0.01324, abs=1e-5)
    assert paired_p([-1.0, -2.0, -3.0, -4.0, -5.0]) == pytest.approx(0.01324, abs=1e-5)
    a, b = np.random.default_rng(0).normal(size=(2, 10))
    assert paired_p((a - b).tolist()) == pytest.approx(stats.ttest_rel(a, b).pvalue)


def test_differences_without_spread_and_too_few_seeds():
    assert paired_p([0.0] * 6) == 1.0 and paired_p([-2.0] * 6) == 0.0
    assert paired_p([0.1 + 0.2 - 0.3] * 5 + [0.0]) == 1.0
    assert paired_p([3e12, 3e12 + 0.01, 3e12 - 0.01, 3e12, 3e12]) == 0.0  # lost runs, traces
    assert math.isnan(paired_p([1.0, 2.0, 3.0, 4.0]))
    few = Paired("wine", "f3eo", "sgd", Range(2.0, 1.0, 3.0, 4), math.nan)
    assert few.relation is None


def test_correction_passes_over_what_has_no_verdict_and_keeps_the_order():
    spread = Range(1.0, 0.5, 1.5, 10)
    family = [
        Paired("t", "f3eo", m, spread, p) for m, p in (("a", 0.04), ("b", math.nan), ("c", 0.01))
    ]
    first, none, last = corrected(family)
    assert (first.p, last.p) == pytest.approx((0.04, 0.02)) and math.isnan(none.p)
    assert [p.second for p in (first, none, last)] == ["a", "b", "c"]


@pytest.mark.parametrize(
    "mean, p, relation", [(1.0, 0.01, "better"), (-1.0, 0.01, "worse"), (1.0, 0.05, "level")]
)
def test_relations_read_sign_and_level_and_can_be_turned(mean, p, relation):
    pair = Paired("wine", "f3eo", "sgd", Range(mean, mean - 0.5, mean + 0.5, 10), p)
    turned = {"better": "worse", "worse": "better", "level": "level"}[relation]
    assert pair.relation == relation and pair.turned.relation == turned
    assert pair.turned.advantage == (-mean, -mean - 0.5, -mean + 0.5, 10)
    assert (pair.turned.first, pair.turned.second) == ("sgd", "f3eo")


@pytest.fixture(scope="module")
def family():
    """F3EO against all others on all tasks, as the report tests it."""
    rows = results()
    by_task = {t: scores([row for row in rows if row["task"] == t], ACCURACY) for t in TASKS}
    rivals = [method for method in LEVELS if method != "f3eo"]
    found = [difference(t, s, "f3eo", rival) for t, s in by_task.items() for rival in rivals]
    return corrected([pair for pair in found if pair])


def test_known_differences_are_found(family):
    """SGD is 3 points below, 7 standard deviations; a t-test of ten seeds cannot miss that."""
    assert len(family) == 110
    for rival in ("adamw", "adahessian", "ivon"):
        assert all(p.relation == "better" for p in family if p.second == rival and p.task != "wine")
    assert [p.task for p in family if p.second == "sgd" and p.relation == "level"] == ["wine"]
    (muon,) = [p for p in family if p.second == "muon" and p.relation == "worse"]
    assert muon.task == "modular-addition" and muon.advantage.mean == pytest.approx(-6, abs=0.3)


def test_equal_methods_are_told_apart_no_more_often_than_the_level_says():
    generator = np.random.default_rng(0)
    false = sum(
        min(holm([paired_p(row.tolist()) for row in generator.normal(size=(20, 10))])) < 0.05
        for _ in range(120)
    )
    assert false <= 13  # 6 are expected; 14 and more have a chance of 0.3 %


def test_a_method_that_always_diverges_is_worse():
    rows = [row for row in results(tasks=("cifar10-10k",)) if row["method"] in ("f3eo", "ivon")]
    pair = difference("cifar10-10k", scores(rows, ACCURACY), "f3eo", "ivon")
    assert pair and pair.relation == "better" and pair.advantage.mean == pytest.approx(83, abs=1)


def test_better_on_most_seeds_and_lost_on_others_is_level():
    """SAM is ahead by one wherever it finished, but its mean is far behind."""
    levels = [90.0 + s / 100 for s in range(10)]
    rows = [row("wine", "f3eo", s, level) for s, level in enumerate(levels)]
    rows += [row("wine", "sam", s, level + 1 if s else None) for s, level in enumerate(levels)]
    pair = difference("wine", scores(rows, ACCURACY), "f3eo", "sam")
    assert pair and pair.advantage.mean > 5 and pair.relation == "level"
