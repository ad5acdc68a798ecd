"""Truncated conjugate gradients against dense solutions, with and without an edge."""

from math import inf

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from f3eo.curvature.conjugate_gradients import truncated_cg
from f3eo.second_order.damping import agreement

SEEDS = st.integers(0, 2**31)
SIZES = st.integers(1, 12)


def problem(seed, size, *, lowest):
    """A symmetric matrix with eigenvalues in (lowest, 3), and a gradient."""
    generator = torch.Generator().manual_seed(seed)
    options = {"generator": generator, "dtype": torch.float64}
    q, _ = torch.linalg.qr(torch.randn(size, size, **options))
    values = lowest + (3 - lowest) * torch.rand(size, **options)
    return q @ torch.diag(values) @ q.T, torch.randn(size, **options)


def solved(matrix, gradient, **options):
    options = {"tolerance": 1e-12, "max_iterations": 100} | options
    return truncated_cg(lambda v: matrix @ v, gradient, **options)


def value(matrix, gradient, d):
    return float(gradient @ d + 0.5 * d @ matrix @ d)


def lowest_in_region(matrix, gradient, radius):
    """The true minimum of the model over ‖d‖ ≤ Δ, by bisection on its multiplier."""
    values, vectors = torch.linalg.eigh(matrix)
    g = vectors.T @ gradient
    low, high = max(0.0, -float(values[0])), float(g.norm()) / radius + 10.0
    if values[0] > 0 and (g / values).norm() <= radius:
        return -0.5 * float((g.square() / values).sum())
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if (g / (values + middle)).norm() > radius else (low, middle)
    d = -g / (values + high)
    return float(g @ d + 0.5 * d @ (values * d))


@settings(deadline=None)
@given(SEEDS, SIZES)
def test_without_an_edge_it_solves_the_system(seed, size):
    matrix, gradient = problem(seed, size, lowest=0.5)
    found = solved(matrix, gradient)
    torch.testing.assert_close(found.step, -torch.linalg.solve(matrix, gradient))
    assert (found.curvature, found.direction, found.at_edge) == (0.0, None, False)
    assert found.iterations <= size + 3


@settings(deadline=None)
@given(SEEDS, SIZES, st.floats(0.01, 10))
def test_in_a_region_it_gains_at_least_half_of_what_can_be_gained(seed, size, radius):
    """Yuan 2000, for positive definite matrices."""
    matrix, gradient = problem(seed, size, lowest=0.2)
    found = solved(matrix, gradient, radius=radius)
    assert found.step.norm() <= radius * (1 + 1e-12)
    gained = -value(matrix, gradient, found.step)
    best = -lowest_in_region(matrix, gradient, radius)
    assert best / 2 * (1 - 1e-9) <= gained <= best * (1 + 1e-9)
    if found.at_edge:
        assert float(found.step.norm()) == pytest.approx(radius)
    else:
        torch.testing.assert_close(found.step, -torch.linalg.solve(matrix, gradient))


@settings(deadline=None)
@given(SEEDS, st.integers(2, 12), st.floats(0.01, 10))
def test_negative_curvature_is_followed_to_the_edge_and_named(seed, size, radius):
    matrix, gradient = problem(seed, size, lowest=-3.0)
    found = solved(matrix, gradient, radius=radius)
    squared = float(gradient @ gradient)
    cauchy = radius / squared**0.5
    if (curvature := float(gradient @ matrix @ gradient)) > 0:
        cauchy = min(cauchy, squared / curvature)
    best = value(matrix, gradient, -cauchy * gradient)
    assert value(matrix, gradient, found.step) <= best + 1e-12
    if found.direction is not None:
        p = found.direction
        assert found.curvature == pytest.approx(float(p @ matrix @ p / (p @ p)))
        assert found.curvature <= 0 and found.at_edge
        assert float(found.step.norm()) == pytest.approx(radius)


def test_negative_curvature_without_an_edge_ends_the_search():
    matrix = torch.diag(torch.tensor([1.0, -1.0], dtype=torch.float64))
    found = solved(matrix, torch.tensor([1.0, 2.0], dtype=torch.float64))
    assert found.curvature == pytest.approx((1 - 4) / 5) and not found.at_edge
    assert torch.equal(found.step, torch.zeros(2, dtype=torch.float64))


@pytest.mark.parametrize("tolerance", [0.5, 1e-2, 1e-6])
def test_it_stops_at_the_tolerance_and_not_before(tolerance):
    matrix, gradient = problem(1, 40, lowest=0.01)
    found = solved(matrix, gradient, tolerance=tolerance)
    fewer = solved(matrix, gradient, tolerance=1e-12, max_iterations=found.iterations - 1)
    left, before = (
        float((matrix @ s.step + gradient).norm() / gradient.norm()) for s in (found, fewer)
    )
    assert left <= tolerance < before
    assert fewer.iterations == found.iterations - 1


@pytest.mark.parametrize("radius", [1.0, inf])
def test_no_gradient_no_step(radius):
    found = solved(torch.eye(3), torch.zeros(3), radius=radius)
    assert found.iterations == 0 and not found.step.any()


def test_a_product_that_is_not_finite_ends_the_search():
    found = truncated_cg(
        lambda v: v * float("nan"), torch.ones(3), tolerance=1e-3, max_iterations=9
    )
    assert found.iterations == 1


def test_agreement():
    assert agreement(0.5, 1.0, 2.0, 1e-16) == pytest.approx(0.5)
    assert agreement(-1e-17, 1e-18, 2.0, 1e-16) == pytest.approx(1.0, abs=0.01)
    assert agreement(0.0, 0.0, 0.0, 1e-16) == 1.0
    assert agreement(float("nan"), 1.0, 2.0, 1e-16) == -inf == agreement(-inf, 1.0, 2.0, 1e-16)
    assert agreement(0.1, -1.0, 2.0, 1e-16) == -inf
