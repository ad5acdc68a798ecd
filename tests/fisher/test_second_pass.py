"""What could make the second pass another function than the first, and is put back or seen.

The truth is double backward on the same draw, or the loop over single samples; both in float64.
"""

import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dense import flat, relative, truth
from f3eo import F3EO, DoubleBackward, FiniteDifference, PerSample
from f3eo.closure.problem import Problem

EXACT = 1e-9
DIFFERENCES = 1e-5


def perceptron(act=torch.tanh, seed=0):
    torch.manual_seed(seed)
    layers = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 3)
    model = nn.ModuleList(layers).double()

    def forward(x):
        return layers[2](act(layers[1](act(layers[0](x)))))

    return model, forward


def batch(count=12, seed=1):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, 6, generator=generator, dtype=torch.float64)
    return x, torch.randint(3, (count,), generator=generator)


def losses(forward):
    return lambda x, y: F.cross_entropy(forward(x), y, reduction="none")


def measured(model, closure, xy, estimator):
    parameters = [p for p in model.parameters() if p.requires_grad]
    problem = Problem(closure, xy, parameters, [True] * len(parameters), model)
    return estimator.gradients(problem)


def h(*given):
    return flat(measured(*given).structure)


GENERATOR = torch.Generator()
DRAWS = {
    "numpy": lambda x: torch.tensor(np.random.randn(*x.shape)),
    "python": lambda x: torch.tensor([random.random() for _ in range(x.shape[1])]).double(),
    "own generator": lambda x: torch.randn(x.shape, generator=GENERATOR).double(),
    "torch": lambda x: torch.randn_like(x),
}


def seed():
    torch.manual_seed(0)
    np.random.seed(0)
    random.seed(0)
    GENERATOR.manual_seed(0)


@pytest.mark.parametrize("draw", DRAWS)
def test_random_numbers_are_drawn_as_in_the_first_pass(draw, caplog):
    """h is that of one draw, and the generators stand where one pass leaves them."""
    model, forward = perceptron()

    def closure(x, y):
        return losses(forward)(x + 0.3 * DRAWS[draw](x), y)

    found, after = [], []
    for engine in (FiniteDifference(), DoubleBackward()):
        seed()
        estimator = PerSample(engine)
        found.append([h(model, closure, batch(), estimator) for _ in range(3)])
        after.append(DRAWS[draw](batch()[0]))
    for one, other in zip(*found, strict=True):
        assert relative(one, other) < DIFFERENCES
    assert torch.equal(*after)
    assert not caplog.records


@pytest.mark.parametrize("size", [1e-1, 1e-3, 1e-5])
def test_state_of_the_closure_is_seen_and_told_once(size, caplog):
    """A counter cannot be put back: the step is measured in one pass, from the third on always."""
    model, forward = perceptron()
    calls = 0

    def closure(x, y):
        nonlocal calls
        calls += 1
        return losses(forward)(x * (1 + size * calls), y)

    estimator = PerSample()
    for _ in range(5):
        found = measured(model, closure, batch(), estimator)
        scale = 1 + size * calls  # of the pass that was used, the last
        expected = truth(model, lambda x, y, s=scale: losses(forward)(s * x, y), *batch(), power=1)
        assert relative(flat(found.structure), expected.structure) < EXACT
        assert relative(flat(found.gradient), expected.gradient) < EXACT
    told = [r.getMessage() for r in caplog.records if "by double backward" in r.getMessage()]
    assert 1 <= len(told) == len(set(told)) and estimator.forwards == 7


class Swish(torch.autograd.Function):
    """x σ(x), keeping x alone."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * x.sigmoid()

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        s = x.sigmoid()
        return g * (s * (1 + x * (1 - s)))


class Reverse(torch.autograd.Function):
    """The identity; its gradient is turned round."""

    @staticmethod
    def forward(ctx, x):
        return x.view_as(x)

    @staticmethod
    def backward(ctx, g):
        return -g


class StraightThrough(torch.autograd.Function):
    """Rounded, with the gradient of the identity."""

    @staticmethod
    def forward(ctx, x):
        return (4 * x).round() / 4

    @staticmethod
    def backward(ctx, g):
        return g


FUNCTIONS = {
    "swish": Swish.apply,
    "reversal": lambda x: Reverse.apply(x.tanh()),
    "straight-through": lambda x: StraightThrough.apply(x.tanh()),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_custom_functions_are_differentiated_as_torch_does(name, caplog):
    model, forward = perceptron(FUNCTIONS[name])
    expected = truth(model, losses(forward), *batch(), power=1).structure
    assert relative(h(model, losses(forward), batch(), PerSample()), expected) < EXACT
    assert caplog.text.count("custom autograd.Function") == 1


def test_a_custom_function_that_comes_later_is_seen(caplog):
    """By what it does to the losses of the second pass; nothing looks at the graph then."""
    act = torch.tanh
    model, forward = perceptron(lambda x: act(x))
    estimator = PerSample()
    for _ in range(2):
        h(model, losses(forward), batch(), estimator)
    assert not caplog.records
    act = FUNCTIONS["reversal"]
    expected = truth(model, losses(forward), *batch(), power=1).structure
    assert relative(h(model, losses(forward), batch(), estimator), expected) < EXACT
    assert caplog.records


def test_the_check_of_h_finds_what_losses_do_not_show(monkeypatch, caplog):
    """A hook that doubles a gradient on the way: both passes have the same losses."""
    monkeypatch.setattr("f3eo.fisher.ghost.recording.capture.HOOKS", set())
    model, _ = perceptron()

    def closure(x, y):
        z = model[0](x).tanh()
        if z.requires_grad:
            z.register_hook(lambda g: g.pow(3) * 100)
        return F.cross_entropy(model[2](model[1](z).tanh()), y, reduction="none")

    exact = h(model, closure, batch(), PerSample(DoubleBackward()))
    assert relative(h(model, closure, batch(), PerSample()), exact) < EXACT
    assert "by double backward" in caplog.text


def test_hooks_on_activations_are_differentiated(caplog):
    model, _ = perceptron()

    def closure(x, y):
        z = model[0](x).tanh()
        if z.requires_grad:
            z.register_hook(lambda g: 2 * g)
        return F.cross_entropy(model[2](model[1](z).tanh()), y, reduction="none")

    expected = truth(model, closure, *batch(), power=1).structure
    assert relative(h(model, closure, batch(), PerSample()), expected) < EXACT
    assert "hook on an activation" in caplog.text


@pytest.mark.parametrize("steps", [0, 5])
def test_hooks_on_gradients_of_parameters_are_refused_when_they_are_seen(steps):
    """At the first step, or at the one after they come."""
    model, forward = perceptron()
    optimizer = F3EO(model, torch.optim.SGD, lr=0.1, fraction=1, every=1)
    for _ in range(steps):
        optimizer.step(losses(forward), *batch())
    model[0].weight.register_hook(lambda g: 2 * g)
    with pytest.raises(ValueError, match=r"0\.weight has a hook on its gradient.*max_norm"):
        for _ in range(17):
            optimizer.step(losses(forward), *batch())


@pytest.mark.parametrize("engine", [FiniteDifference(), DoubleBackward()])
def test_a_module_hook_that_comes_later_is_heeded_at_once(engine):
    model, forward = perceptron()
    estimator = PerSample(engine)
    for _ in range(2):
        h(model, losses(forward), batch(), estimator)
    model[1].register_full_backward_hook(lambda module, into, out: (2 * into[0],))
    expected = truth(model, losses(forward), *batch(), power=1).structure
    assert relative(h(model, losses(forward), batch(), estimator), expected) < EXACT


def test_closures_without_a_second_derivative_keep_to_differences(caplog):
    """Where they are expected to be coarse, too: there is nothing better, and that is said."""
    torch.manual_seed(0)
    model = nn.Linear(6, 3)
    x, y = batch()
    x = x.float()

    def closure(x, y):
        return 1e-4 * F.multi_margin_loss(model(x), y, reduction="none", p=2, margin=5.0)

    estimator = PerSample()
    found = measured(model, closure, (x, y), estimator)
    assert flat(found.structure).isfinite().all() and float(found.error) > 0.01
    assert "no second derivative" in caplog.text and estimator.forwards == 6
