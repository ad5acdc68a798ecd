import pytest
from scipy import stats

from f3eo.bench.statistics.welch import differences


def test_holm_multiplies_the_smallest_p_by_the_number_of_pairs():
    samples = {"a": [1.0, 1.1, 0.9, 1.0], "b": [1.2, 1.3, 1.1, 1.4], "c": [5.0, 5.2, 4.9, 5.1]}
    raw = {
        (i, j): stats.ttest_ind(samples[i], samples[j], equal_var=False).pvalue
        for i, j in (("a", "b"), ("a", "c"), ("b", "c"))
    }
    found = {(d.first, d.second): d for d in differences(samples)}
    ranks = sorted(raw, key=raw.get)
    expected, largest = {}, 0.0
    for factor, pair in zip((3, 2, 1), ranks, strict=True):
        largest = max(largest, factor * raw[pair])
        expected[pair] = largest
    for pair in raw:
        assert found[pair].p == pytest.approx(expected[pair])
    assert found["a", "b"].mean == pytest.approx(-0.25)
    assert found["a", "b"].low < -0.25 < found["a", "b"].high


def test_samples_without_spread_are_compared_without_dividing_by_zero():
    same, other = differences({"a": [1, 1], "b": [1, 1], "c": [2, 2]})[:2]
    assert not same.distinguishable and same.p == 1
    assert other.distinguishable and other.mean == -1


def test_a_method_with_one_seed_is_not_judged():
    assert differences({"a": [1.0, 2.0], "b": [3.0]}) == []


def test_a_method_without_spread_is_compared_without_a_warning():
    """The values of three seeds that ended equal; one of them is off by rounding."""
    same = [96.8, 96.8, 96.80000000000001]
    (found,) = differences({"a": same, "b": [96.0, 95.0, 96.5]})
    assert found.mean == pytest.approx(0.9667, abs=1e-3) and 0 < found.p < 1
