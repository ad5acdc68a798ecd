"""The noise scale: without bias over all batches of a small population, and averaged over a run."""

from itertools import product
from math import inf, isnan, nan

import pytest
import torch

from f3eo.monitor.noise import Moments, NoiseScale, moments

POPULATION = torch.randn(4, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
MEAN = POPULATION.mean(0)
SIGNAL = float(MEAN @ MEAN)
NOISE = float((POPULATION - MEAN).square().sum(1).mean())
WEIGHTS = {
    "equal": torch.ones(3).double() / 3,
    "unequal": torch.tensor([0.5, 0.3, 0.2]).double(),
    "one has none": torch.tensor([0.6, 0.4, 0.0]).double(),
}


# A part stands for its batch without weights alone.
@pytest.mark.parametrize(("weights", "part"), [*((name, 3) for name in WEIGHTS), ("equal", 1)])
def test_the_mean_over_all_batches_is_the_truth(weights, part):
    """All 4³ draws of three samples; m of the whole batch, or of each of its samples in turn."""
    w = WEIGHTS[weights]
    found = []
    for drawn in product(range(4), repeat=3):
        g = POPULATION[list(drawn)]
        squared, own = g.square().sum(1), float((w @ g).square().sum())
        means = [float(w @ squared)] if part == 3 else squared.tolist()
        found += [moments(m, own, float(w.square().sum())) for m in means]
    noise, signal = torch.tensor(found, dtype=torch.float64).mean(0).tolist()
    assert noise == pytest.approx(NOISE) and signal == pytest.approx(SIGNAL)


def test_a_single_sample_says_nothing():
    assert moments(2.0, 2.0, 1.0) is None


def test_the_scale_is_the_ratio_of_two_averages():
    scale, beta = NoiseScale(0.75), 0.75
    assert isnan(scale.value)
    noise = signal = 0.0
    for x, y in [(4.0, 2.0), (8.0, -0.5), (6.0, 1.0)]:
        noise, signal = beta * noise + 0.25 * x, beta * signal + 0.25 * y
        scale.update(Moments(x, y))
        assert scale.value == pytest.approx(noise / signal)
    assert scale.state_dict() == pytest.approx({"noise": noise, "signal": signal})


def test_constant_moments_have_their_own_ratio_from_the_first_on():
    scale = NoiseScale(0.9)
    for _ in range(3):
        scale.update(Moments(6.0, 2.0))
        assert scale.value == pytest.approx(3.0)


def test_noise_without_a_sign_of_the_gradient_is_infinite():
    scale = NoiseScale(0.0)
    scale.update(Moments(1.0, -0.1))
    assert scale.value == inf
    scale.update(Moments(-0.1, 1.0))
    assert scale.value == 0


@pytest.mark.parametrize("left_out", [None, Moments(nan, 1.0), Moments(1.0, inf)])
def test_what_is_missing_or_not_finite_is_left_out(left_out):
    scale = NoiseScale(0.5)
    scale.update(Moments(6.0, 2.0))
    scale.update(left_out)
    assert scale.value == 3.0


def test_the_averages_are_restored():
    first, second = NoiseScale(0.5), NoiseScale(0.5)
    first.update(Moments(6.0, 2.0))
    second.load_state_dict(first.state_dict())
    for scale in (first, second):
        scale.update(Moments(1.0, 3.0))
    assert first.value == second.value == pytest.approx(1.0)
