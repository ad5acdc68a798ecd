import math

import pytest
import torch

from f3eo import Cap, Fitted, Fixed, Ratio, Warmup
from f3eo.extend import Observation, Strength

FACTORS = [  # strength, ‖g‖, ‖d‖, λ
    (Ratio(0.3), 2.0, 4.0, 0.15),
    (Ratio(0.3), 0.0, 4.0, 0.0),
    (Ratio(0.3), 2.0, 0.0, 0.0),
    (Cap(0.3), 2.0, 4.0, 0.3),
    (Cap(0.3), 0.4, 4.0, 0.1),
    (Cap(0.3, limit=0.5), 0.4, 4.0, 0.05),
    (Cap(0.3), 2.0, 0.0, 0.0),
    (Fitted(0.3), 2.0, 4.0, 0.3),
    (Fitted(0.3, limit=0.5), 0.4, 4.0, 0.05),
    (Fixed(0.3), 2.0, 4.0, 0.3),
    (Fixed(0.3), 0.0, 0.0, 0.3),
]


@pytest.mark.parametrize(("strength", "gradient", "direction", "expected"), FACTORS)
def test_the_multiplier_is_its_formula(strength, gradient, direction, expected):
    assert strength.multiplier(strength.value, gradient, direction) == pytest.approx(
        expected, rel=1e-15
    )


@pytest.mark.parametrize("kind", [Ratio, Cap, Fitted, Fixed])
def test_the_constant_of_a_step_is_value_times_schedule(kind):
    assert [kind(0.5).scheduled(step) for step in (0, 1, 1000)] == [0.5] * 3
    strength = kind(0.5, schedule=lambda step: step / 4)
    expected = [0.0, 0.125, 0.25, 0.375]
    assert [strength.scheduled(step) for step in range(4)] == expected
    assert [strength.at(Observation(step, 0.0)) for step in range(4)] == expected


@pytest.mark.parametrize("kind", [Ratio, Cap, Fitted, Fixed])
def test_zero_is_a_strength_and_repr_shows_the_value(kind):
    assert kind(0).at(Observation(3, 0.0)) == kind(0).scheduled(3) == 0
    assert repr(kind(0.25)) == f"{kind.__name__}(0.25)"


@pytest.mark.parametrize("loss", [0.0, 0.7, 2.3, -1.5, 19.9])
def test_only_fitted_heeds_the_loss_and_falls_with_it_to_the_probability_of_the_labels(loss):
    for kind in (Ratio, Cap, Fixed):
        assert kind(0.5).at(Observation(3, loss)) == 0.5
    expected = 0.5 * min(1.0, math.exp(-loss)) / 4
    found = Fitted(0.5, schedule=lambda step: step / 4).at(Observation(1, loss))
    assert found == pytest.approx(expected, rel=1e-15)


def test_a_loss_that_is_in_no_nats_is_told_once_with_the_way_out():
    strength = Fitted(0.04)
    with pytest.warns(
        UserWarning, match=r"Fitted\(0.04\) .* received loss of 1.2e\+03: .* Cap\(0.04\)"
    ):
        assert strength.at(Observation(0, 1.2e3)) == 0.0
    assert strength.at(Observation(1, 1.2e3)) == 0.0  # warnings are errors here


@pytest.mark.parametrize("power", [1.0, 1.3, 2.0])
def test_a_distance_has_the_scale_of_a_mean_norm_for_every_power(power):
    """∇(E n^p)^(1/p) = (E n^p)^(1/p − 1) h for norms n that are all alike, then n^(1 − p) h."""
    observed = Observation(0, 0.7, torch.tensor(9.0, dtype=torch.float64), power)
    for kind in (Cap, Fitted):
        unscaled = kind(0.5).at(Observation(0, 0.7))
        assert kind(0.5).at(observed) == pytest.approx(unscaled * 3 ** (1 - power), rel=1e-15)
    assert Ratio(0.5).at(observed) == Fixed(0.5).at(observed) == 0.5
    assert Observation(0, 0.7, None, power).norm_scale() == 1.0  # nothing measured yet
    zero = Observation(0, 0.7, torch.tensor(0.0), power)
    assert Cap(0.5).at(zero) == (0.5 if power == 1 else 0.0)


@pytest.mark.parametrize(
    ("warmup", "factors"),
    [
        (Warmup(1), [1.0, 1.0, 1.0, 1.0]),
        (Warmup(2), [0.5, 1.0, 1.0, 1.0]),
        (Warmup(4), [0.25, 0.5, 0.75, 1.0]),
        (Warmup(2, delay=1), [0.0, 0.5, 1.0, 1.0]),
        (Warmup(1, delay=3), [0.0, 0.0, 0.0, 1.0]),
    ],
)
def test_warmup_grows_linearly_after_its_delay(warmup, factors):
    assert [warmup(step) for step in range(4)] == factors
    assert warmup(10_000) == 1.0


@pytest.mark.parametrize("factor", [-1e-9, float("nan"), float("inf")])
def test_a_factor_that_is_negative_or_not_finite_is_refused(factor):
    with pytest.raises(ValueError, match=r"schedule of Ratio\(0.3\).*>= 0.*at step 7"):
        Ratio(0.3, lambda step: factor).at(Observation(7, 0.0))


def test_a_strength_of_ones_own_is_one_method():
    class Half(Strength):
        def multiplier(self, value, gradient, direction):
            return value / 2

    assert Half(0.5).multiplier(0.5, 1.0, 1.0) == 0.25
    with pytest.raises(TypeError, match="abstract"):
        Strength(0.5)
