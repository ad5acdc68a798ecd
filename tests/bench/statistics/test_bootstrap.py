import math

import numpy as np
import pytest

from f3eo.bench.statistics.bootstrap import bootstrap


def test_it_covers_the_true_mean_about_as_often_as_it_says():
    """95 % asked; resampling n values sees √((n − 1)/n) of the spread: 94 at 30, ± 3 here."""
    generator = np.random.default_rng(0)
    drawn = [bootstrap(generator.normal(3.0, 2.0, 30).tolist()) for _ in range(300)]
    covered = np.mean([found.low <= 3.0 <= found.high for found in drawn])
    assert 0.89 <= covered <= 0.98


def test_its_width_is_that_of_the_normal_approximation():
    values = np.random.default_rng(1).normal(0, 1, 400)
    found = bootstrap(values.tolist())
    half = 1.959964 * values.std() / math.sqrt(400)
    assert (found.high - found.low) / 2 == pytest.approx(half, rel=0.05)
    assert found.mean == pytest.approx(values.mean())


def test_the_same_values_give_the_same_interval_and_another_seed_nearly_so():
    values = [1.01, 2.23, 4.17, 8.61, 3.37, 2.88, 5.02]
    assert bootstrap(values) == bootstrap(values) != bootstrap(values, seed=1)
    assert bootstrap(values).low == pytest.approx(bootstrap(values, seed=1).low, abs=0.2)


def test_one_value_has_no_interval_and_equal_ones_a_point():
    assert bootstrap([2.0]).mean == 2.0 and math.isnan(bootstrap([2.0]).low)
    assert bootstrap([2.0] * 4) == (2.0, 2.0, 2.0, 4)
    with pytest.raises(ValueError, match="at least one value"):
        bootstrap([])
