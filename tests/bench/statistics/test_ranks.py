import math

import pytest
from scipy import stats

from f3eo.bench.statistics.ranks import critical_difference, rank

# Demšar, JMLR 7 (2006), table 6: AUC of C4.5, +m, +cf, +m+cf on 14 data sets.
DEMSAR = [
    (0.763, 0.768, 0.771, 0.798), (0.599, 0.591, 0.590, 0.569), (0.954, 0.971, 0.968, 0.967),
    (0.628, 0.661, 0.654, 0.657), (0.882, 0.888, 0.886, 0.898), (0.936, 0.931, 0.916, 0.931),
    (0.661, 0.668, 0.609, 0.685), (0.583, 0.583, 0.563, 0.625), (0.775, 0.838, 0.866, 0.875),
    (1.000, 1.000, 1.000, 1.000), (0.940, 0.962, 0.965, 0.962), (0.619, 0.666, 0.614, 0.669),
    (0.972, 0.981, 0.9751, 0.975), (0.957, 0.978, 0.946, 0.970),
]  # fmt: skip


def test_the_example_of_demsar():
    """He gives 3.143, 2.000, 2.893 and 1.964, χ² = 9.28 and a difference of 1.25 at 5 %.

    His χ² is without the correction for ties that scipy makes; ranks and difference are not.
    """
    names = ("C4.5", "m", "cf", "m+cf")
    found = rank({str(i): dict(zip(names, row, strict=True)) for i, row in enumerate(DEMSAR)})
    expected = {"m+cf": 1.964, "m": 2.000, "cf": 2.893, "C4.5": 3.143}
    assert list(found.average) == list(expected)
    assert found.average == pytest.approx(expected, abs=5e-4)
    assert found.critical == pytest.approx(1.25, abs=0.005)
    assert found.p == pytest.approx(stats.friedmanchisquare(*zip(*DEMSAR, strict=True)).pvalue)
    assert found.groups == [["m+cf", "m", "cf", "C4.5"]] or found.groups == [
        ["m+cf", "m", "cf", "C4.5"][:3], ["m", "cf", "C4.5"],
    ]  # fmt: skip


@pytest.mark.parametrize("k, q", [(2, 1.960), (3, 2.343), (5, 2.728), (10, 3.164)])
def test_the_critical_values_are_those_of_demsars_table_5(k, q):
    assert critical_difference(k, 1) == pytest.approx(q * math.sqrt(k * (k + 1) / 6), rel=3e-4)
    assert critical_difference(k, 4) == pytest.approx(critical_difference(k, 1) / 2)


def test_ties_share_their_ranks_and_tasks_without_all_methods_are_left_out():
    found = rank({
        "one": {"a": 3.0, "b": 3.0, "c": 1.0},
        "two": {"a": 1.0, "b": 2.0, "c": 3.0},
        "three": {"a": 9.0, "b": 8.0},
    })  # fmt: skip
    assert found.average == {"b": 1.75, "c": 2.0, "a": 2.25}
    assert found.tasks == ["one", "two"] and found.left_out == ["three"]


def test_groups_are_the_longest_sets_within_the_critical_difference():
    tasks = {str(i): {m: -float(j) for j, m in enumerate("abcdefgh")} for i in range(40)}
    found = rank(tasks)
    assert 1 < found.critical < 2  # 10.4 / √40 = 1.66: neighbours are level, and no others
    assert found.groups == [[a, b] for a, b in zip("abcdefg", "bcdefgh", strict=True)]
    assert found.p < 1e-30


def test_little_data_has_ranks_but_no_test():
    two = rank({"one": {"a": 1.0, "b": 2.0}})
    assert two.average == {"b": 1.0, "a": 2.0} and math.isnan(two.critical) and not two.groups
    assert rank({}).average == {} and rank({"one": {"a": 1.0}, "two": {"b": 1.0}}).average == {}
    tied = rank({str(i): dict.fromkeys("abc", 1.0) for i in range(3)})
    assert tied.p == 1.0 and tied.groups == [["a", "b", "c"]]
