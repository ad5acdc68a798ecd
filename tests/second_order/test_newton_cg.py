"""Negative curvature is found, followed downhill and reported."""

import pytest
import torch
from torch import nn

from f3eo.second_order import NewtonCG
from second_order.helpers import Point, weights

X = torch.zeros(2, 1, dtype=torch.float64)


def double_well(model):
    """x² + (y² − 1)²: minima at (0, ±1), a saddle at the origin with curvature −4 in y."""

    def closure(x):
        a, b = model.place
        return (a.square() + (b.square() - 1).square()) + x.sum(1)

    return closure


def made(place, **options):
    model = Point(place)
    return model, NewtonCG(model, generator=torch.Generator().manual_seed(0), **options)


@pytest.mark.parametrize(
    "place", [[0.3, 0.01], [0.0, 0.01], [1.0, 0.0], [0.0, 0.0], [-0.5, 1e-9]], ids=str
)
def test_it_escapes_a_saddle_reports_it_and_finds_a_minimum(place):
    model, optimizer = made(place, tolerance=1e-10)
    found = []
    for _ in range(30):
        optimizer.step(double_well(model), X)
        found.append(optimizer.report.negative_curvature)
    assert min(found) < 0
    assert weights(model)[0].abs() < 1e-8
    assert float(weights(model)[1].abs()) == pytest.approx(1.0, abs=1e-8)
    assert found[-1] == 0.0  # at a minimum there is none to report


def test_the_first_step_along_negative_curvature_reaches_the_edge():
    model, optimizer = made([0.0, 0.1], radius=0.5)
    optimizer.step(double_well(model), X)
    assert optimizer.report.negative_curvature == pytest.approx(12 * 0.01 - 4)
    assert optimizer.report.accepted
    torch.testing.assert_close(weights(model), torch.tensor([0.0, 0.6], dtype=torch.float64))


def test_at_a_saddle_without_a_gradient_the_random_vector_is_the_generators():
    ends = []
    for seed in (0, 0, 1, 2, 3, 4, 5):
        model = Point([0.0, 0.0])
        optimizer = NewtonCG(model, radius=0.5, generator=torch.Generator().manual_seed(seed))
        optimizer.step(double_well(model), X)
        assert optimizer.report.negative_curvature < 0 and optimizer.report.accepted
        assert float(weights(model).norm()) == pytest.approx(0.5)
        ends.append(float(weights(model)[1]))
    assert ends[0] == ends[1]
    assert {end > 0 for end in ends} == {True, False}


@pytest.mark.parametrize("slope", [1e-9, -1e-9])
def test_what_slope_there_is_decides_between_the_two_ways_down(slope):
    """Too small for the loss to resolve, in a direction without negative curvature."""
    for seed in range(6):
        model = Point([slope, 0.0])
        optimizer = NewtonCG(model, radius=0.5, generator=torch.Generator().manual_seed(seed))
        optimizer.step(double_well(model), X)
        assert optimizer.report.negative_curvature < 0
        assert slope * (float(weights(model)[0]) - slope) < 0


def test_the_random_vector_leaves_unused_parameters_alone():
    model = Point([0.0, 0.0])
    model.unused = nn.Parameter(torch.ones(3, dtype=torch.float64))
    optimizer = NewtonCG(model, radius=0.5)
    optimizer.step(double_well(model), X)
    assert optimizer.report.accepted and optimizer.report.negative_curvature < 0
    assert torch.equal(model.unused.detach(), torch.ones(3, dtype=torch.float64))


def test_at_a_minimum_it_draws_once_and_moves_nowhere():
    model, optimizer = made([0.0, 1.0])
    optimizer.step(double_well(model), X)
    assert torch.equal(weights(model), torch.tensor([0.0, 1.0], dtype=torch.float64))
    assert optimizer.report.negative_curvature == 0.0 and optimizer.report.accepted


def test_with_a_generator_torchs_global_random_state_stays():
    model, optimizer = made([0.0, 0.0])
    before = torch.get_rng_state()
    optimizer.step(double_well(model), X)
    assert torch.equal(before, torch.get_rng_state())


def test_a_closure_that_fails_gives_the_generator_its_state_back():
    model, optimizer = made([0.0, 0.0])
    before, calls = optimizer.generator.get_state(), []

    def closure(x):
        calls.append(1)
        if len(calls) == 2:
            raise ZeroDivisionError
        return double_well(model)(x)

    with pytest.raises(ZeroDivisionError):
        optimizer.step(closure, X)
    assert torch.equal(before, optimizer.generator.get_state())


@pytest.mark.parametrize("y", [0.5, 0.8])
def test_a_small_region_is_no_reason_to_draw(y):
    """What the model promises there is less than the loss resolves, with or without curvature."""
    model, optimizer = made([0.0, y], radius=1e-18)
    before = optimizer.generator.get_state()
    optimizer.step(double_well(model), X)
    assert torch.equal(before, optimizer.generator.get_state())


def test_it_takes_losses_and_a_scalar():
    for closure in (lambda m: lambda x: m.place.square().sum().exp(), double_well):
        model, optimizer = made([0.5, 0.5])
        optimizer.step(closure(model), X)
        assert optimizer.report.accepted
