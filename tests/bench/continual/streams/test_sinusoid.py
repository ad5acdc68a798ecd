import math

import torch

from f3eo.bench.continual.streams.sinusoid import STREAMS, gaussian_loss, sinusoid, stages, unseen

SINUSOID = STREAMS[0]


def test_samples_are_those_of_the_function_on_the_whole_range():
    data = sinusoid(0.7, seed=0)
    assert data.train.x.shape == data.train.y.shape == (10_000, 1) and len(data.test.x) == 1_000
    for x, y in (data.train, data.test):
        torch.testing.assert_close(y, torch.sin(x + 0.7))
        assert -5 <= x.min() < -4.9 and 4.9 < x.max() <= 5 and abs(x.mean()) < 0.3


def test_the_error_of_zero_is_the_mean_square():
    """(1/10) ∫ sin²(x + φ) over [−5, 5] = ½ − sin(10) cos(2φ) / 20."""
    data, phase = sinusoid(0.7, seed=0), 0.7
    error = SINUSOID.score(torch.zeros(10_000, 1), data.train.y).mean()
    assert abs(error - (0.5 - math.sin(10) * math.cos(2 * phase) / 20)) < 0.02


def test_the_mean_over_phases_has_the_least_error_without_adaptation():
    """E sin²(x + φ) − ((2/π) cos x)², which is ½ − 2/π² where cos² has its mean ½."""
    x = math.pi * torch.rand(20_000, 1, generator=torch.Generator().manual_seed(0))
    phases = math.pi * torch.rand(20_000, 1, generator=torch.Generator().manual_seed(1))
    errors = [
        SINUSOID.score(factor * x.cos(), (x + phases).sin()).mean().item()
        for factor in (2 / math.pi, 0.5, 0.8)
    ]
    assert abs(errors[0] - (0.5 - 2 / math.pi**2)) < 0.01 and errors[0] == min(errors)


def test_phases_are_drawn_from_half_a_turn_and_none_comes_twice():
    names = [stage.name for seed in (0, 1) for stage in (*stages(seed), *unseen(seed))]
    phases = [float(name.split(" = ")[1]) for name in names]
    assert all(0 <= phase <= math.pi for phase in phases) and max(phases) > 2 > 1 > min(phases)
    first, second = (stages(seed)[0].load() for seed in (0, 1))
    assert not torch.equal(first.train.x, second.train.x)
    assert not torch.equal(first.train.x, stages(0)[1].load().train.x)


def test_the_loss_is_that_of_a_gaussian_of_unit_variance():
    outputs, y = torch.randn(2, 6, 1, generator=torch.Generator().manual_seed(0)).double()
    density = torch.distributions.Normal(outputs, 1.0).log_prob(y).flatten()
    torch.testing.assert_close(gaussian_loss(outputs, y), -density - math.log(2 * math.pi) / 2)
