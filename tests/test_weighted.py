"""Weights of samples and positions, against a loop over single samples in float64."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn, optim

from dense import flat, relative
from f3eo import (
    F3EO,
    Batch,
    Categorical,
    Compiled,
    Coupled,
    DoubleBackward,
    FiniteDifference,
    Fixed,
    ModelSampled,
    PerSample,
    Sign,
    Weighted,
    fisher_trace,
)
from f3eo.evaluation import Problem
from f3eo.second_order import GaussNewton, NewtonCG

IGNORED = -100


def tokens(seed=0, count=6, positions=5):
    """A model of tokens, with sequences of 1 to `positions` kept labels and one of none."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Embedding(9, 6), nn.Tanh(), nn.Linear(6, 9)).double()
    x = torch.randint(9, (count, positions))
    y = torch.randint(9, (count, positions))
    for i in range(count):
        y[i, i % (positions + 1) :] = IGNORED  # the first sample keeps none
    return model, x, y.roll(2, 0)


def weighted(model):
    """Kept tokens by hand, with class weights: what the labels count."""
    scale = torch.linspace(0.2, 3, 9, dtype=torch.float64)

    def closure(x, y):
        kept = (y != IGNORED) * scale[y.clamp(min=0)]
        return Weighted(F.cross_entropy(model(x).movedim(-1, 1), y, reduction="none"), kept)

    return closure, lambda y: (y != IGNORED) * scale[y.clamp(min=0)]


def categorical(model):
    def closure(x, y):
        return Categorical(model(x), y, per_token=True)

    return closure, lambda y: (y != IGNORED).double()


def by_sample(model):
    """Weights of whole samples, positions averaged."""

    def closure(x, y):
        losses = F.cross_entropy(model(x).movedim(-1, 1), y.clamp(min=0), reduction="none")
        return Weighted(losses, (y == IGNORED).sum(1))

    return closure, lambda y: (y == IGNORED).double().mean(1, keepdim=True).expand(y.shape)


KINDS = {"weighted": weighted, "categorical": categorical, "by sample": by_sample}


def loop(model, x, y, weights, power):
    """L, ∇L, trace and h from one forward pass for every sample."""
    parameters = list(model.parameters())
    total = weights.sum()
    loss, trace = 0.0, 0.0
    gradient = torch.zeros(sum(p.numel() for p in parameters), dtype=torch.float64)
    structure = torch.zeros_like(gradient)
    for i in range(len(x)):
        w = weights[i].sum()
        if w == 0:
            continue
        each = F.cross_entropy(model(x[i]), y[i].clamp(min=0), reduction="none")
        own = (each * weights[i]).sum() / w
        g = flat(torch.autograd.grad(own, parameters, create_graph=True))
        along = g.detach() * g.detach().norm() ** (power - 2)
        bent = flat(torch.autograd.grad(g, parameters, along))
        loss += float(own.detach() * w / total)
        trace += float(g.detach().square().sum() * w / total)
        gradient += g.detach() * w / total
        structure += bent * w / total
    return loss, gradient, trace, structure


def problem(model, closure, *batch):
    parameters = list(model.parameters())
    return Problem(closure, batch, parameters, [True] * len(parameters), model)


ESTIMATORS = {
    "double": (lambda p: PerSample(DoubleBackward(), power=p), 1e-9),
    "differences": (lambda p: PerSample(FiniteDifference(), power=p), 1e-5),
    "central": (lambda p: PerSample(FiniteDifference(central=True), power=p), 1e-5),
    "compiled": (lambda p: Compiled(PerSample(power=p), backend=None), 1e-5),
}


@pytest.mark.parametrize("power", [1.0, 1.5, 2.0])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ESTIMATORS)
def test_every_mean_of_the_batch_is_weighted(name, kind, power):
    model, x, y = tokens()
    closure, weights = KINDS[kind](model)
    make, tolerance = ESTIMATORS[name]
    estimator = make(power)
    loss, gradient, trace, structure = loop(model, x, y, weights(y), power)
    for _ in range(3 if name == "compiled" else 1):
        found = estimator.gradients(problem(model, closure, x, y))
        assert float(found.loss) == pytest.approx(loss, rel=1e-9)
        assert relative(flat(found.gradient), gradient) < 1e-9
        assert float(found.trace) == pytest.approx(trace, rel=1e-9)
        assert relative(flat(found.structure), structure) < tolerance


def test_a_recording_takes_the_weights_of_each_batch():
    """The sum of weights is data: another batch of the same shape has another."""
    model, x, y = tokens()
    closure, weights = weighted(model)
    estimator = Compiled(backend=None)
    for seed in range(4):
        _, x, y = tokens(seed)
        found = estimator.gradients(problem(model, closure, x, y))
        assert float(found.weight) == pytest.approx(float(weights(y).sum()))
        assert float(found.loss) == pytest.approx(loop(model, x, y, weights(y), 1)[0], rel=1e-9)
