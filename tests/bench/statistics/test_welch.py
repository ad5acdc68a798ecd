import math

import pytest
from scipy import stats

from f3eo.bench.statistics.welch import curves, differences, finals, interval


def test_the_interval_is_students_t_by_hand():
    # mean 3, s = sqrt(10/4), s/sqrt(5) = 0.7071; t(0.975, 4) = 2.776445 from a table
    mean, half, n = interval([1, 2, 3, 4, 5])
    assert (mean, n) == (3, 5)
    assert half == pytest.approx(2.776445 * math.sqrt(2.5) / math.sqrt(5), rel=1e-6)


def test_one_value_has_no_interval_and_none_is_refused():
    assert interval([4.0]).mean == 4.0 and math.isnan(interval([4.0]).half)
    with pytest.raises(ValueError, match="at least one"):
        interval([])


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


def test_finals_leave_out_what_did_not_finish(make_row):
    lost = make_row(seed=1) | {"status": "failed", "final": None, "curve": None}
    frame = finals([make_row(0.5), lost, make_row(0.7, method="sam")])
    assert frame["method"].to_list() == ["sgd", "sam"]
    assert frame["test_accuracy"].to_list() == [0.5, 0.7]
    assert finals([lost]).is_empty() and curves([lost]).is_empty()


def test_curves_hold_the_mean_and_the_interval_at_each_point(make_row):
    frame = curves([make_row(a, seed=s) for s, a in enumerate((0.2, 0.4, 0.6))])
    last = frame.filter(frame["point"] == 1).row(0, named=True)
    assert last["test_accuracy"] == pytest.approx(0.4)
    assert last["test_accuracy_half"] == pytest.approx(interval([0.2, 0.4, 0.6]).half)
    assert last["seconds"] == 2.0


def test_a_method_without_spread_is_compared_without_a_warning():
    """The values of three seeds that ended equal; one of them is off by rounding."""
    same = [96.8, 96.8, 96.80000000000001]
    (found,) = differences({"a": same, "b": [96.0, 95.0, 96.5]})
    assert found.mean == pytest.approx(0.9667, abs=1e-3) and 0 < found.p < 1
