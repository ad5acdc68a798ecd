"""Temperature scaling, against the temperature that a closed form gives."""

import math

import pytest
import torch

from f3eo.bench.run.calibration import calibration_error
from f3eo.bench.run.temperature import LIMIT, fit_temperature, temperature_scaled


def binary(right: int, wrong: int, margin: float):
    """Logits (margin, 0) for all samples, label 0 on `right` of them."""
    logits = torch.tensor([[margin, 0.0]]).repeat(right + wrong, 1)
    return logits, torch.tensor([0] * right + [1] * wrong)


@pytest.mark.parametrize("margin", [0.2, 1.0, 9.0])
def test_the_best_confidence_is_the_accuracy(margin):
    """One margin a and a share p of right answers: σ(a / T) = p, so T = a / log(p / (1 − p))."""
    logits, y = binary(9, 3, margin)
    assert fit_temperature(logits, y) == pytest.approx(margin / math.log(3), rel=1e-3)
    by_position = logits.view(3, 4, 2), y.view(3, 4)
    assert fit_temperature(*by_position) == pytest.approx(margin / math.log(3), rel=1e-3)


def test_a_model_that_is_always_right_has_the_lowest_temperature():
    """Its loss is below any number's precision long before the limit: any such T will do."""
    logits, y = binary(5, 0, 1.0)
    found = fit_temperature(logits, y)
    assert 1 / LIMIT <= found < 0.05
    logits, y = binary(0, 5, 1.0)
    assert fit_temperature(logits, y) == pytest.approx(LIMIT, rel=1e-2)


def test_the_temperature_is_where_the_slope_of_the_loss_vanishes():
    generator = torch.Generator().manual_seed(0)
    z = 3 * torch.randn(200, 5, generator=generator, dtype=torch.float64)
    y = torch.randint(5, (200,), generator=generator)
    y[:120] = z[:120].argmax(1)
    inverse = torch.tensor(1 / fit_temperature(z, y), dtype=torch.float64, requires_grad=True)
    loss = torch.nn.functional.cross_entropy(inverse * z, y)
    (slope,) = torch.autograd.grad(loss, inverse)
    assert abs(slope.item()) < 1e-3


def test_one_half_is_fitted_and_the_other_judged():
    """Even samples have three right of four, odd ones one right of two."""
    even, labels = binary(6, 2, 5.0)
    odd, answers = binary(4, 4, 5.0)
    logits = torch.stack([even, odd], 1).flatten(0, 1)
    y = torch.stack([labels, answers], 1).flatten()
    found = temperature_scaled(logits, y)
    assert found["temperature"] == pytest.approx(5 / math.log(3), rel=1e-3)
    assert found["scaled_calibration_error"] == pytest.approx(0.25, abs=1e-3)
    mean = -(math.log(0.75) + math.log(0.25)) / 2
    assert found["scaled_loss"] == pytest.approx(mean, rel=1e-3)
    again = temperature_scaled(3 * logits, y)  # the scale of the logits is no matter
    assert again["scaled_loss"] == pytest.approx(found["scaled_loss"], rel=1e-3)
    assert calibration_error(even / found["temperature"], labels) == pytest.approx(0, abs=1e-3)
