import math

import pytest

from f3eo.bench.statistics.student import interval


def test_the_interval_is_students_t_by_hand():
    # mean 3, s = sqrt(10/4), s/sqrt(5) = 0.7071; t(0.975, 4) = 2.776445 from a table
    mean, half, n = interval([1, 2, 3, 4, 5])
    assert (mean, n) == (3, 5)
    assert half == pytest.approx(2.776445 * math.sqrt(2.5) / math.sqrt(5), rel=1e-6)


def test_one_value_has_no_interval_and_none_is_refused():
    assert interval([4.0]).mean == 4.0 and math.isnan(interval([4.0]).half)
    with pytest.raises(ValueError, match="at least one"):
        interval([])
