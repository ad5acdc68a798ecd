"""Gradients that float16 does not hold are right with a loss scale, and zero without."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dense import flat, relative, truth
from f3eo import (
    Compiled,
    DoubleBackward,
    Elementwise,
    FiniteDifference,
    LossScale,
    MiniBatch,
    PerSample,
    Sign,
    Weighted,
)
from f3eo.closure.problem import Problem

SMALL = 1e-8
"""Of the losses: their gradients in the logits are below 6e-8, and none in float16."""


def network(dtype=torch.float32):
    torch.manual_seed(0)
    layers = nn.Linear(6, 12), nn.LayerNorm(12), nn.GELU(), nn.Linear(12, 3)
    return nn.Sequential(*layers).to(dtype)


def batch(count=16):
    draw = torch.Generator().manual_seed(1)
    return torch.randn(count, 6, generator=draw), torch.randint(3, (count,), generator=draw)


def closure_of(model, size=SMALL, autocast=torch.float16):
    def losses(x, y):
        with torch.autocast("cpu", autocast, enabled=autocast is not None):
            z = model(x)
        z = z.float() if autocast is not None else z
        return size * F.cross_entropy(z, y, reduction="none")

    return losses


def measured(estimator, scale, size=SMALL, closure=closure_of, **more):
    model = network()
    parameters = list(model.parameters())
    problem = Problem(
        closure(model, size), batch(), parameters, [True] * len(parameters), model,
        scale=scale, on_output=None if scale is None else lambda out: scale.see(out.losses), **more,
    )  # fmt: skip
    return estimator.gradients(problem)


def exact(size=SMALL, **options):
    model = network(torch.float64)
    x, y = batch()
    closure = closure_of(model, size, None)
    return truth(model, closure, x.double(), y, **options)


ESTIMATORS = {  # estimator, power and D of the truth
    "double": (PerSample(DoubleBackward()), 1, None),
    "double, p = 2": (PerSample(DoubleBackward(), power=2), 2, None),
    "double, D = |θ|": (PerSample(DoubleBackward(), metric=Elementwise()), 1, torch.abs),
    "double, slices": (PerSample(DoubleBackward(), memory=1), 1, None),
    "differences": (PerSample(FiniteDifference(central=True, step=0.01)), 1, None),
    "differences, p = 2": (PerSample(FiniteDifference(central=True, step=0.01), power=2), 2, None),
    "differences, D = |θ|": (
        PerSample(FiniteDifference(central=True, step=0.01), metric=Elementwise()), 1, torch.abs
    ),
    "compiled": (Compiled(PerSample(DoubleBackward()), backend=None), 1, None),
}  # fmt: skip


@pytest.mark.parametrize("held", [False, True])
@pytest.mark.parametrize("name", ESTIMATORS)
def test_small_gradients_are_those_of_float64(name, held):
    estimator, power, diagonal = copy.deepcopy(ESTIMATORS[name])
    getattr(estimator, "estimator", estimator).hold_residuals = held
    parameters = flat(list(network(torch.float64).parameters())).detach()
    D = 1.0 if diagonal is None else diagonal(parameters)
    expected = exact(power=power, diagonal=D, held=held)
    trace = (D * expected.gradients).square().sum(1).mean()
    for _ in range(3):  # the third one is recorded, where it is compiled
        found = measured(estimator, LossScale(2.0**24))
    assert estimator.forwards == (9 if "differences" in name else 7)
    assert not any(estimator.counters().values())  # no other engine has stood in
    assert relative(flat(found.gradient).double(), expected.gradient) < 3e-3
    assert float(found.trace) == pytest.approx(float(trace), rel=2e-3)
    assert relative(flat(found.structure).double(), expected.structure) < 1e-2
    by_leaf = found.norms.trace_by_leaf().values()
    assert float(sum(by_leaf)) == pytest.approx(float(trace), rel=2e-3)
    without = measured(estimator, None)
    assert not flat(without.gradient).any() and not float(without.trace)
    assert not flat(without.structure).any()


def in_float64():
    """Model, closure and batch of the same network."""
    model, (x, y) = network(torch.float64), batch()
    return model, closure_of(model, SMALL, None), x.double(), y


@pytest.mark.parametrize("estimator", [PerSample(), Sign(), MiniBatch(), Sign(FiniteDifference())])
def test_a_gradient_alone_is_that_of_float64(estimator):
    _, losses, x, y = in_float64()
    model = network()
    parameters = list(model.parameters())
    scale = LossScale(2.0**24)
    problem = Problem(
        closure_of(model), batch(), parameters, [True] * len(parameters), model,
        scale=scale, on_output=lambda out: scale.see(out.losses),
    )  # fmt: skip
    found = estimator.loss_gradient(problem)
    expected = truth(_, losses, x, y)
    assert relative(flat(found.gradient).double(), expected.gradient) < 3e-3
    assert float(found.loss) == pytest.approx(float(expected.losses.mean()), rel=1e-3)


@pytest.mark.parametrize("engine", [DoubleBackward(), FiniteDifference()])
def test_products_by_engines_are_those_of_float64(engine):
    """Over 2¹²: h of MiniBatch is S² times as large in between."""
    _, losses, x, y = in_float64()
    parameters = list(_.parameters())
    g = torch.autograd.grad(losses(x, y).mean(), parameters, create_graph=True)
    h = torch.autograd.grad(g, parameters, [v.detach() for v in g])
    found = measured(MiniBatch(engine), LossScale(2.0**12), SMALL * 2**12)
    assert relative(flat(found.gradient).double() / 2**12, flat(g).detach()) < 5e-3
    trace = 2**24 * float(flat(g).detach().square().sum())
    assert float(found.trace) == pytest.approx(trace, rel=1e-2)
    bound = 0.02 if isinstance(engine, DoubleBackward) else 0.1
    assert relative(flat(found.structure).double() / 2**24, flat(h)) < bound


def test_squares_and_weights_are_those_of_float64():
    weights = torch.arange(1.0, 17.0)

    def weighted(model, size):
        return lambda x, y: Weighted(closure_of(model, size)(x, y), weights)

    _, losses, x, y = in_float64()
    gradients = truth(_, losses, x, y).gradients
    shares = (weights / weights.sum()).double().unsqueeze(1)
    for engine in (DoubleBackward(), FiniteDifference(central=True, step=0.01)):
        estimator = PerSample(engine)
        found = measured(estimator, LossScale(2.0**24), closure=weighted, squares=True)
        assert relative(flat(found.gradient).double(), (shares * gradients).sum(0)) < 3e-3
        assert relative(flat(found.squares).double(), (shares * gradients**2).sum(0)) < 3e-3
        trace = (shares * gradients**2).sum()
        assert float(found.trace) == pytest.approx(float(trace), rel=2e-3)


def test_gradients_that_overflow_are_not_finite():
    """And no error: the step is skipped."""
    for engine in (DoubleBackward(), FiniteDifference(central=True, step=0.01)):
        found = measured(PerSample(engine), LossScale(2.0**50))
        assert not flat(found.gradient).isfinite().all()


def test_where_nothing_is_float16_nothing_changes():
    model, (x, y) = network(), batch()
    scale = LossScale()
    scale.see(closure_of(model, 1.0, torch.bfloat16)(x, y))
    assert scale.factor == 1
    scale.see(closure_of(model, 1.0, None)(x, y))
    assert scale.factor == 1
    scale.see(closure_of(model)(x, y))
    assert scale.factor == 2**15
    scale.see(closure_of(model, 1.0, torch.bfloat16)(x, y))
    assert scale.factor == 1
    scale.see(model(x).half().sum(1))
    assert scale.factor == 2**15
