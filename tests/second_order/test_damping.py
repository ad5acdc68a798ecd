"""Damping rule, and number of steps to optima that dense Newton steps give."""

from itertools import combinations
from math import inf

import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_iris
from torch import nn

from f3eo import Categorical, Gaussian
from f3eo.second_order import GaussNewton, LayerwiseGaussNewton
from f3eo.second_order.damping import LARGEST, SMALLEST, nielsen
from second_order.helpers import Point, weights

KINDS = [GaussNewton, LayerwiseGaussNewton]
PAIRS = list(combinations(range(4), 2))
CLOSE = 1e-8


# The rule.


@pytest.mark.parametrize(
    "ratio, factor",
    [(1e-4, 2 - 6e-4), (0.25, 1.125), (0.5, 1), (0.75, 0.875), (0.9, 0.488)]
    + [(ratio, 1 / 3) for ratio in (0.95, 1.0, 1.5, 1e300)],
)
def test_after_a_step_that_is_kept(ratio, factor):
    damping, growth = nielsen(0.6, 16.0, ratio, True)
    assert damping == pytest.approx(0.6 * factor, rel=1e-6) and growth == 2.0


def test_after_rejections_in_a_row():
    state, found = (0.5, 2.0), []
    for _ in range(4):
        state = nielsen(*state, float("-inf"), False)
        found.append(state)
    assert found == [(1.0, 4.0), (4.0, 8.0), (32.0, 16.0), (512.0, 32.0)]


@pytest.mark.parametrize("first", [1e-25, 1.0, 1e35])
@pytest.mark.parametrize("ratio, accepted", [(1.0, True), (1e-4, True), (0.0, False)])
def test_it_stays_within_its_bounds_or_moves_inwards(first, ratio, accepted):
    state = first, 2.0
    for _ in range(2000):
        state = nielsen(*state, ratio, accepted)
        assert min(first, SMALLEST) <= state[0] <= max(first, LARGEST)
    assert state[0] == (min(first, SMALLEST) if ratio == 1 else max(first, LARGEST))


@pytest.mark.parametrize("kind", KINDS)
def test_it_recovers_from_any_number_of_rejections(kind):
    model = Point([1.0])
    optimizer, target = kind(model), torch.zeros(1, 2, dtype=torch.float64)
    calls = torch.zeros(1, dtype=torch.float64)

    def worse():
        calls.add_(1)  # what the step cannot lower rises
        return Gaussian(torch.cat([model.place, calls])[None], target)

    for _ in range(60):
        optimizer.step(worse)
        assert not optimizer.report.accepted
    assert optimizer.damping == LARGEST
    for _ in range(80):
        optimizer.step(lambda: Gaussian(torch.cat([model.place, 0 * calls])[None], target))
    assert abs(weights(model)) < 1e-8


# Softmax regression on two features of iris, where Gauss-Newton is Newton's method.


def iris(pair, classes):
    """Features (B, 2), labels (B,) from 0, of the last `classes` kinds."""
    data = load_iris()
    kept = data.target >= 3 - classes
    x = torch.tensor(data.data[kept][:, pair])
    return x, torch.tensor(data.target[kept]) - (3 - classes)


def newton(x, y, classes):
    """Losses of dense Newton steps from zero, and ∇L and ∇²L at the end; the last logit is 0."""
    wide = torch.cat([x, torch.ones(len(x), 1, dtype=x.dtype)], 1)

    def loss(theta):
        logits = wide @ theta.view(classes - 1, 3).T
        return F.cross_entropy(F.pad(logits, (0, 1)), y)

    theta, losses = torch.zeros(3 * (classes - 1), dtype=x.dtype), []
    for _ in range(25):
        losses.append(float(loss(theta)))
        gradient, hessian = torch.func.grad(loss)(theta), torch.func.hessian(loss)(theta)
        theta = theta - torch.linalg.solve(hessian, gradient)
    return losses, gradient, hessian


def count(losses, best):
    """Steps to within 1e-8 of the best loss; inf if none is."""
    return next((i for i, loss in enumerate(losses) if loss < best + CLOSE), inf)


def steps_to(best, kind, x, y, classes):
    """Steps, rejected ones counted, until the loss is within 1e-8 of the best."""
    model = nn.Linear(2, classes).double()
    nn.init.zeros_(model.weight), nn.init.zeros_(model.bias)
    optimizer = kind(model)
    losses = [float(optimizer.step(lambda x, y: Categorical(model(x), y), x, y)) for _ in range(30)]
    assert min(losses) > best - 1e-12
    return count(losses, best)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("pair", PAIRS, ids=str)
def test_few_steps_lead_to_an_optimum(pair, kind):
    """Versicolor or virginica: no pair of features separates them, the optimum is a point."""
    x, y = iris(pair, 2)
    losses, gradient, hessian = newton(x, y, 2)
    assert gradient.norm() < 1e-12 and torch.linalg.eigvalsh(hessian)[0] > 1e-5
    assert steps_to(losses[-1], kind, x, y, 2) <= min(15, 2 * count(losses, losses[-1]))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("pair", PAIRS, ids=str)
def test_it_keeps_up_with_newton_towards_an_optimum_at_infinity(pair, kind):
    """All three kinds: setosa can be separated, so that L has an infimum and no minimum.

    Setosa's own loss goes to 0 and two thirds of the loss of the others are left. Near it every
    Newton step divides what is left by e: dense Newton itself takes 19 to 21 steps.
    """
    best = newton(*iris(pair, 2), 2)[0][-1] * 2 / 3
    x, y = iris(pair, 3)
    exact = count(newton(x, y, 3)[0], best)
    assert 19 <= exact <= 21
    assert steps_to(best, kind, x, y, 3) <= 1.4 * exact


# Nothing rises.


@pytest.mark.parametrize("regress", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_no_step_that_is_kept_raises_the_loss_of_a_network(kind, regress):
    rejected = 0
    for seed in range(4):
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Linear(2, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh())
        model = model.append(nn.Linear(6, 3)).double()
        x = torch.randn(20, 2, dtype=torch.float64)
        y = torch.randn(20, 3, dtype=torch.float64) if regress else torch.randint(3, (20,))
        optimizer = kind(model)

        def closure(x, y, model=model):
            return (Gaussian if regress else Categorical)(model(x), y)

        for _ in range(40):
            held, before = weights(model), float(closure(x, y).losses().mean().detach())
            optimizer.step(closure, x, y)
            assert float(closure(x, y).losses().mean().detach()) <= before
            if not optimizer.report.accepted:
                rejected += 1
                assert torch.equal(held, weights(model))
    assert rejected > 3
