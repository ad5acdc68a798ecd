"""The controller by itself: its formula, its anti-windup, its refusals; and the running mean."""

import math

import pytest

from f3eo.control import PI
from f3eo.control.running_mean import running_mean

WIDE = (-math.inf, math.inf)


def test_it_is_the_sum_of_the_formula():
    errors = [0.3, -0.2, 1.5, 0.0, -0.7]
    controller, integral = PI(0.8, 0.1), 0.0
    for t, error in enumerate(errors):
        found = controller(error, integral, start=-2.0, bounds=WIDE)
        integral = found.integral
        expected = -2.0 + 0.8 * error + 0.1 * sum(errors[: t + 1])
        assert found.value == pytest.approx(expected, abs=1e-14)


@pytest.mark.parametrize(("sign", "bounds"), [(1, (-5.0, 1.0)), (-1, (-1.0, 5.0))])
def test_an_error_that_leads_beyond_a_bound_is_not_summed_up(sign, bounds):
    integral = 0.0
    for _ in range(1000):
        found = PI(1.0, 0.1)(sign * 0.5, integral, start=0.0, bounds=bounds)
        integral = found.integral
    assert found.value == sign
    assert abs(integral) <= 0.5 + 0.05  # the bound less K_P e, and one step
    back = PI(1.0, 0.1)(-sign * 0.5, integral, start=0.0, bounds=bounds)
    assert sign * back.value < 0.1  # at once


def test_where_the_limit_binds_only_errors_that_lower_the_output_count():
    controller = PI(0.0, 0.1)
    kept = controller(0.5, 0.2, start=0.0, bounds=WIDE, limited=True)
    assert (kept.value, kept.integral) == (0.2, 0.2)
    lower = controller(-0.5, 0.2, start=0.0, bounds=WIDE, limited=True)
    assert lower.value == lower.integral == pytest.approx(0.15)


@pytest.mark.parametrize("gains", [(-1.0, 0.1), (1.0, math.nan), (math.inf, 0.1)])
def test_a_bad_gain_is_refused(gains):
    with pytest.raises(ValueError, match=r"finite .* gain >= 0, received"):
        PI(*gains)


def test_no_gain_at_all_is_refused():
    with pytest.raises(ValueError, match="gain above 0, received 0 and 0"):
        PI(0, 0)


def test_the_mean_is_plain_at_first_and_then_forgets():
    values = [4.0, 1.0, 7.0, 2.0, 9.0, 3.0]
    mean, found = -1e9, []
    for count, value in enumerate(values, 1):
        mean = running_mean(mean, count, value, memory=3)
        found.append(mean)
    assert found[:3] == pytest.approx([4.0, 2.5, 4.0])
    assert found[3:] == pytest.approx([4 - 2 / 3, 10 / 3 + (9 - 10 / 3) / 3, 4.481481481])
