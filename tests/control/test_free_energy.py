"""FreeEnergy against the minimum of the free energy, in the noise and in the parameters."""

import math

import pytest
import torch
from torch.optim import SGD

from dense import relative, truth
from f3eo import F3EO, ByRow, Coupled, DoubleBackward, Elementwise, Fixed, PerSample
from f3eo.control import FreeEnergy
from f3eo.control.free_energy import optimal_noise
from f3eo.extend import Observation
from optimizer.helpers import network, structure_term

WHOLE = {"rule": Coupled(), "fraction": 1, "every": 1}


@pytest.mark.parametrize("variance", [0.5, 1.0, 30.0, math.inf])
@pytest.mark.parametrize(("trace", "parameters", "samples"), [(2.0, 100, 40), (0.01, 7, 5000)])
def test_the_noise_is_where_the_free_energy_is_least(trace, parameters, samples, variance):
    def energy(noise):
        divergence = 0.5 * parameters * (noise / variance - noise.log())
        return samples * 0.5 * noise * trace + divergence

    noise = optimal_noise(trace, parameters, samples, variance)
    at = torch.tensor(noise, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(energy(at), at)
    assert abs(float(slope)) * noise < 1e-12 * parameters
    assert all(energy(factor * at) > energy(at) for factor in (0.99, 1.01))
    assert noise <= variance


@pytest.mark.parametrize("metric", [ByRow, Elementwise])
def test_by_default_the_divergence_is_that_of_a_gaussian_prior_of_the_parameters_own_scale(metric):
    """KL(N(θ, αD²), N(0, D²)) = ½P(α − log α), whatever θ is."""
    theta = torch.randn(3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    scale = metric().of([theta])[id(theta)].times(torch.ones_like(theta))
    for noise in (0.2, 0.7):
        q = torch.distributions.Normal(theta, noise**0.5 * scale)
        prior = torch.distributions.Normal(0.0, scale)
        found = torch.distributions.kl_divergence(q, prior).sum()
        expected = 0.5 * theta.numel() * (noise - math.log(noise))
        assert float(found) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("power", [1.0, 1.5, 2.0])
@pytest.mark.parametrize("variance", [1.0, math.inf])
def test_the_update_descends_the_expected_loss_at_every_power(power, variance):
    """Of one sample all norms are alike: λ_p h_p = α* ½∇Tr(D F D)."""
    row = network()
    x, y = row.batch
    batch = x[:1], y[:1]
    wanted = truth(row.model, row.losses, *batch)
    size = sum(p.numel() for p in row.model.parameters())
    noise = size / (50 * float(wanted.trace) + size / variance)
    strength = FreeEnergy(50, variance=variance, limit=1e9)
    estimator = PerSample(DoubleBackward(), power=power)
    optimizer = F3EO(row.model, SGD, lr=0.1, estimator=estimator, strength=strength, **WHOLE)
    part, _ = structure_term(row, batch, optimizer)
    assert strength.noise == pytest.approx(noise, rel=1e-10)
    assert relative(part, noise * wanted.structure) < 1e-8


def test_a_quadratic_model_goes_to_the_joint_minimum_of_the_free_energy():
    """ℓ_i = ½ a_i (θ − b_i)² with N = 2, P = 1: over θ it is N L + ½ log(N T + 1/s²)."""
    a = torch.tensor([1.0, 3.0], dtype=torch.float64)
    b = torch.tensor([0.0, 1.0], dtype=torch.float64)

    def profile(theta):
        loss = (0.5 * a * (theta - b) ** 2).mean()
        trace = (a * (theta - b)).square().mean()
        return 2 * loss + 0.5 * (2 * trace + 1).log()

    grid = torch.linspace(0.5, 1.0, 50_001, dtype=torch.float64)
    wanted = float(grid[torch.stack([profile(t) for t in grid]).argmin()])
    theta = torch.zeros((), dtype=torch.float64, requires_grad=True)
    estimator = PerSample(DoubleBackward(), power=2)
    strength = FreeEnergy(2, limit=1e9)
    optimizer = F3EO([theta], SGD, lr=0.05, estimator=estimator, strength=strength, **WHOLE)
    for _ in range(800):
        optimizer.step(lambda a, b: 0.5 * a * (theta - b) ** 2, a, b)
    assert float(theta.detach()) == pytest.approx(wanted, abs=2e-5)
    assert abs(wanted - 0.75) > 0.01  # where L alone is least


def seen(model, **options):
    """What a strength is told at each of four steps."""
    found = []

    class Seeing(Fixed):
        def at(self, observed):
            found.append(observed)
            return super().at(observed)

    row = network()
    groups = model(row.model) if callable(model) else row.model
    optimizer = F3EO(groups, SGD, lr=0.1, strength=Seeing(0.1), **options)
    for _ in range(4):
        optimizer.step(row.losses, *row.batch)
    return found, row.model


def test_a_strength_learns_which_steps_measured():
    found, _ = seen(None, every=3)
    assert [o.measured for o in found] == [True, False, False, True]
    assert found[1].trace is found[0].trace


def test_the_parameters_that_count_are_those_of_the_trace():
    found, model = seen(None)
    matrices = sum(p.numel() for p in model.parameters() if p.ndim >= 2)
    assert found[0].parameters == sum(p.numel() for p in model.parameters()) > matrices
    found, _ = seen(None, estimator=PerSample(metric=ByRow(vectors=0.0)))
    assert found[0].parameters == matrices
    found, model = seen(
        lambda m: [
            {"params": m[0].parameters()},
            {"params": m[2:].parameters(), "structure": False},
        ]
    )
    assert found[0].parameters == sum(p.numel() for p in model[0].parameters())


def test_without_a_trace_or_at_a_trace_of_zero_it_takes_nothing():
    for power in (1.0, 2.0):
        assert FreeEnergy(10).at(Observation(0, 1.0, None, power, 5)) == 0.0
        assert (
            FreeEnergy(10, variance=math.inf).at(Observation(0, 1.0, torch.tensor(0.0), power, 5))
            == 0.0
        )


@pytest.mark.parametrize(
    ("arguments", "error", "said"),
    [
        ({"samples": 0}, ValueError, "number of training samples, at least 1, received 0"),
        ({"samples": 4e3}, TypeError, "an integer as samples, received 4000.0"),
        ({"samples": 9, "variance": -1.0}, ValueError, "variance > 0, received -1.0"),
        ({"samples": 9, "memory": math.inf}, ValueError, "memory >= 1, received inf"),
        ({"samples": 9, "limit": -1}, ValueError, "limit > 0, received -1"),
    ],
)
def test_bad_arguments_are_refused(arguments, error, said):
    with pytest.raises(error, match=said):
        FreeEnergy(**arguments)
