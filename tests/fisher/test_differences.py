"""Per-sample finite differences: what the second pass keeps of the first, and what stands in."""

import copy
import logging

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from cases import case
from dense import flat, relative, truth
from f3eo import DoubleBackward, FiniteDifference, PerSample
from f3eo.closure.problem import Problem

EXACT, DIFFERENCES = DoubleBackward(), FiniteDifference()


def losses(model):
    return lambda x, y: F.cross_entropy(model(x), y, reduction="none")


def measured(model, batch, engine=DIFFERENCES, closure=None, structured=None, **options):
    """Everything an estimator gives, and the estimator."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    structured = structured or [True] * len(parameters)
    problem = Problem(closure or losses(model), batch, parameters, structured, model)
    estimator = PerSample(engine, **options, power=2)
    return estimator.gradients(problem), estimator


def h(model, batch, engine=DIFFERENCES, closure=None, **options):
    return flat(measured(model, batch, engine, closure, **options)[0].structure).double()


def mlp(function, count=64, width=64):
    """A network of functions with many kinks, and a batch; in float64."""

    class Layer(nn.Module):
        def forward(self, x):
            return function(x)

    torch.manual_seed(0)
    layers = [nn.Linear(20, width), Layer(), nn.Linear(width, width), Layer()]
    model = nn.Sequential(*layers, nn.LazyLinear(10)).double()
    batch = torch.randn(count, 20, dtype=torch.float64), torch.randint(10, (count,))
    model(batch[0])
    return model, batch


def single(model, batch):
    return copy.deepcopy(model).float(), (batch[0].float(), batch[1])


# Kinks.

STRAIGHT = {
    "relu": F.relu,
    "relu, in place": lambda x: F.relu(x, inplace=True),
    "relu, by keyword": lambda x: F.relu(input=x),
    "relu_": torch.relu_,
    "leaky_relu": F.leaky_relu,
    "leaky_relu, by keyword": lambda x: F.leaky_relu(negative_slope=0.2, input=x),
    "relu6": lambda x: F.relu6(6 * x),
    "hardtanh": F.hardtanh,
    "hardshrink": F.hardshrink,
    "softshrink": F.softshrink,
    "threshold": lambda x: F.threshold(x, 0.1, 0.2),
    "abs": torch.abs,
    "clamp": lambda x: x.clamp(-0.5, 0.5),
    "clamp, bounds in a tensor": lambda x: torch.clamp(x, min=torch.zeros_like(x)),
    "max_pool1d": lambda x: F.max_pool1d(x, 2).repeat(1, 2),
    "max_pool2d": lambda x: F.max_pool2d(x.view(-1, 1, 8, 8), 2).flatten(1).repeat(1, 4),
    "amax": lambda x: x.view(len(x), -1, 2).amax(-1).repeat(1, 2),
    "where": lambda x: torch.where(x > 0, x, 0.1 * x),
    "mask": lambda x: x * (x > 0),
    "masked_fill": lambda x: x.masked_fill(x < 0, 0.0),
    "l1_loss": lambda x: F.l1_loss(x, torch.ones_like(x), reduction="none"),
}
"""Held on their pieces."""

MOVING = {
    "clamp between activations": lambda x: torch.clamp(x, min=-x.flip(1)),
    "maximum": lambda x: torch.maximum(x, x.flip(1)),
    "max": lambda x: x.view(len(x), -1, 2).max(-1).values.repeat(1, 2),
    "sort": lambda x: x.sort(1).values,
    "topk": lambda x: x.topk(32, 1).values.repeat(1, 2),
    "hardswish": lambda x: F.hardswish(3 * x),
    "selu": F.selu,
    "leaky_relu, in place": lambda x: F.leaky_relu(x, 0.01, True),
    "leaky_relu_": lambda x: F.leaky_relu_(x, 0.01),
}
"""Left to double backward."""


@pytest.mark.parametrize("central", [False, True])
@pytest.mark.parametrize("name", STRAIGHT | MOVING)
def test_kinks_leave_h_as_it_is_in_float32(name, central):
    """The steps of central differences are larger and meet many more kinks."""
    model, batch = mlp((STRAIGHT | MOVING)[name])
    expected = h(model, batch, EXACT)
    found, estimator = measured(*single(model, batch), FiniteDifference(central=central))
    assert relative(flat(found.structure).double(), expected) < 1e-2
    assert (estimator.forwards == 7) == (name in MOVING)


@pytest.mark.parametrize("name", ["relu", "leaky_relu", "abs", "max_pool1d", "mask"])
def test_without_the_pieces_of_the_first_pass_kinks_spoil_it(name, monkeypatch):
    """So the test above tests something."""
    monkeypatch.setattr("f3eo.fisher.ghost.second_pass.replay.KINKED", set())
    monkeypatch.setattr("f3eo.curvature.cuts.Cuts.keep", lambda *_: False)
    monkeypatch.setattr("f3eo.fisher.single_samples.TOLERANCE", torch.inf)  # they would be told
    monkeypatch.setattr("f3eo.fisher.differences.sample_mismatch", lambda *_: torch.zeros(()))
    model, batch = mlp(STRAIGHT[name])
    expected = h(model, batch, EXACT)
    assert relative(h(*single(model, batch), FiniteDifference(central=True)), expected) > 1


def test_a_parameter_that_bounds_a_clamp_moves_with_its_sample():
    model, batch = mlp(torch.tanh)
    bound = nn.Parameter(torch.full((64,), 0.3, dtype=torch.float64))
    model.register_parameter("bound", bound)

    def closure(x, y):
        return losses(model[2:])(torch.clamp(model[0](x), max=bound), y)

    assert relative(h(model, batch, closure=closure), h(model, batch, EXACT, closure)) < 1e-5


def test_convolutions_with_relu_and_max_pooling_in_float32():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(2, 16, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 16, 3, padding=1),
        nn.LeakyReLU(0.1),
        nn.AdaptiveMaxPool2d(2),
        nn.Flatten(),
        nn.Linear(64, 5),
    ).double()
    batch = torch.randn(32, 2, 12, 12, dtype=torch.float64), torch.randint(5, (32,))
    assert relative(h(*single(model, batch)), h(model, batch, EXACT)) < 1e-2


# Precision.


@pytest.mark.parametrize("name", ["mlp", "attention"])
def test_central_differences_are_closer_than_forward_ones(name):
    c = case(name)
    expected = truth(c.model, c.losses, *c.batch).structure
    forward, central = (
        relative(h(c.model, c.batch, FiniteDifference(central=b), c.losses), expected)
        for b in (False, True)
    )
    assert central < forward / 4 and forward < 1e-6


def test_losses_wider_than_the_model_do_not_shrink_the_step():
    """It follows the coarsest rounding in the graph: float32, not the float64 of the losses."""
    model, batch = mlp(torch.tanh)
    small, (x, y) = single(model, batch)

    def closure(x, y):
        return F.cross_entropy(small(x).double(), y, reduction="none")

    assert relative(h(small, (x, y), closure=closure), h(model, batch, EXACT)) < 1e-2


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(6, 20), (64, 20), (8, 128, 20)])
def test_a_loss_linear_in_the_weights_has_no_structure_gradient(shape, dtype):
    """Gradients summed in another order differ by rounding, which is no curvature."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 40), nn.ReLU()).to(dtype)
    x = torch.randn(shape, dtype=dtype)
    assert h(model, (x,), closure=lambda x: model(x).flatten(1).sum(1)).count_nonzero() == 0


# What the second pass repeats.


class Noisy(nn.Module):
    """Dropout, noise of its own, and a buffer that counts."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(5, 16), nn.Linear(16, 3)
        self.drop = nn.Dropout(0.5)
        self.register_buffer("count", torch.zeros(()))

    def forward(self, x):
        self.count += 1
        z = self.drop(torch.tanh(self.first(x + 0.1 * torch.randn_like(x))))
        return self.last(z * torch.rand(16, dtype=x.dtype))


@pytest.mark.parametrize("central", [False, True])
def test_all_passes_see_the_same_noise_and_leave_that_of_one(central):
    """h is the exact engine's under the same seed; random state and buffers as after one pass."""
    found, after, model = [], [], Noisy().double()
    batch = case("mlp").batch
    for engine in (FiniteDifference(central=central), EXACT):
        torch.manual_seed(3)
        model.count.zero_()
        found.append(h(model, batch, engine))
        after.append(torch.get_rng_state())
        assert model.count == 1
    torch.manual_seed(3)
    model(batch[0])
    assert relative(*found) < 1e-5
    assert torch.equal(after[0], after[1]) and torch.equal(after[0], torch.get_rng_state())


class Target(nn.Module):
    """Its own output, held constant, is what it is pulled towards."""

    def __init__(self, way):
        super().__init__()
        self.layer, self.way = nn.Linear(5, 3), way

    def forward(self, x):
        z = torch.tanh(self.layer(x))
        if self.way == "no_grad":
            with torch.no_grad():
                target = torch.softmax(self.layer(x), 1)
        else:
            target = torch.softmax(self.layer(x).detach(), 1)
        noise = torch.randn_like(z)  # no gradient either, but drawn from the generator
        return F.dropout(z, 0.5) + target * z.exp() + 0.1 * noise


@pytest.mark.parametrize("way", ["detach", "no_grad"])
def test_what_is_detached_stays_what_it_was(way):
    """As for the exact engine, whose derivatives do not go through it."""
    torch.manual_seed(0)
    model = Target(way).double()
    found, after = [], []
    for engine in (DIFFERENCES, EXACT):
        torch.manual_seed(3)
        found.append(h(model, case("mlp").batch, engine))
        after.append(torch.get_rng_state())
    assert relative(*found) < 1e-5 and torch.equal(*after)


def test_a_closure_that_does_something_else_the_second_time_is_measured_once(caplog):
    c, calls = case("mlp"), []

    def closure(x, y):
        calls.append(len(x))
        odd = len(calls) % 2
        first = c.model[0](x) if odd else torch.add(c.model[0].bias, x.sum(1)[:, None])
        return losses(c.model[1:])(first, y)

    assert relative(h(c.model, c.batch, closure=closure), h(c.model, c.batch, EXACT)) < 1e-9
    assert "torch.add where it ran torch.nn.functional.linear" in caplog.text


@pytest.mark.parametrize("name", ["mlp", "cnn", "attention", "tied", "no_rules"])
def test_what_is_out_of_the_structure_term_stays_where_it_is(name):
    """Its gradient enters neither Tr F nor the step, and h is that with it held constant."""
    c = case(name)
    parameters = [p for p in c.model.parameters() if p.requires_grad]
    structured = [i % 2 == 0 for i in range(len(parameters))]
    found, _ = measured(c.model, c.batch, closure=c.losses, structured=structured)
    chosen = [p for p, s in zip(parameters, structured, strict=True) if s]
    expected = truth(chosen, c.losses, *c.batch)
    assert relative(found.trace, expected.trace) < 1e-10
    assert relative(flat(found.structure), expected.structure) < 1e-5
    assert relative(flat(found.gradient), truth(c.model, c.losses, *c.batch).gradient) < 1e-10


def test_what_is_frozen_stays_where_it_is():
    c = case("partly_frozen")
    before = [p.clone() for p in c.model.parameters()]
    expected = truth([p for p in c.model.parameters() if p.requires_grad], c.losses, *c.batch)
    assert relative(h(c.model, c.batch, closure=c.losses), expected.structure) < 1e-5
    assert all(torch.equal(a, b) for a, b in zip(before, c.model.parameters(), strict=True))


@pytest.mark.parametrize("name", ["sequence_first", "attention", "tied"])
def test_samples_that_are_not_in_front_come_back_where_they_were(name):
    """No sample takes another's weights: with weights on the losses, no two are alike."""
    c = case(name)

    def closure(x, y, share):
        each = c.losses(x, y)
        return each * share.view(-1, *(1,) * (each.ndim - 1))

    batch = *c.batch, torch.arange(1.0, len(c.batch[0]) + 1).double()
    expected = truth(c.model, closure, *batch).structure
    assert relative(h(c.model, batch, closure=closure), expected) < 1e-5


def test_rows_of_samples_folded_inside_out():
    """(T·B, d): the samples are the inner part of the first dimension."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Bilinear(7, 7, 3)).double()
    x, y = torch.randn(4, 6, 5, dtype=torch.float64), torch.randint(3, (4,))

    def closure(x, y):
        z = torch.tanh(model[0](x.transpose(0, 1).reshape(-1, 5)))
        z = model[2](z, z.flip(1)).view(6, -1, 3).mean(0)
        return F.cross_entropy(z, y, reduction="none")

    expected = truth(model, closure, x, y).structure
    assert relative(h(model, (x, y), closure=closure), expected) < 1e-5


# Where double backward stands in.


def checkpointed(model, x):
    return model[2:](checkpoint(model[:2], x, use_reentrant=False))


def in_bfloat16(model, x):
    with torch.autocast("cpu", torch.bfloat16):
        return model(x)


STAND_INS = {  # why, the options, the dtype, the forward pass
    "memory": ("memory=1 bytes", {"memory": 1}, torch.float64, lambda m, x: m(x)),
    "checkpoint": ("checkpointing", {}, torch.float64, checkpointed),
    "autocast": ("16 bits", {}, torch.float32, in_bfloat16),
    "half": ("16 bits", {}, torch.float16, lambda m, x: m(x)),
    "bfloat16": ("16 bits", {}, torch.bfloat16, lambda m, x: m(x)),
}


@pytest.mark.parametrize("name", STAND_INS)
def test_double_backward_stands_in_where_differences_cannot_be(name, caplog):
    """The very numbers of the exact engine, and the reason logged once."""
    why, options, dtype, forward = STAND_INS[name]
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv1d(2, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(24, 3)).to(dtype)
    x, y = torch.randn(6, 2, 8, dtype=dtype), torch.randint(3, (6,))

    def closure(x, y):
        return F.cross_entropy(forward(model, x), y, reduction="none")

    parameters = list(model.parameters())
    problem = Problem(closure, (x, y), parameters, [True] * 4, model)
    estimator = PerSample(DIFFERENCES, **options, power=2)
    with caplog.at_level(logging.INFO, "f3eo"):
        found = [estimator.gradients(problem) for _ in range(2)]
    assert caplog.text.count("by double backward instead") == 1 and why in caplog.text
    assert estimator.forwards == 7
    expected = PerSample(EXACT, **options, power=2).gradients(problem)
    for each in found:
        assert torch.equal(each.trace, expected.trace)
        assert torch.equal(flat(each.structure), flat(expected.structure))


def test_the_random_numbers_of_a_stand_in_are_those_of_one_pass():
    """The pass before it is not drawn anew."""
    model, batch = Noisy().double(), case("mlp").batch
    found = []
    for engine in (DIFFERENCES, EXACT):
        torch.manual_seed(3)
        model.count.zero_()

        def closure(x, y):
            return losses(model)(x, y) * torch.maximum(model.last.bias, -model.last.bias).sum()

        found.append((h(model, batch, engine, closure, memory=1), torch.get_rng_state()))
        assert model.count == 1
    assert torch.equal(found[0][0], found[1][0]) and torch.equal(found[0][1], found[1][1])
