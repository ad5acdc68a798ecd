"""The promise: the structure term leaves the loss to first order and descends the trace."""

import copy

import pytest
import torch
from torch.nn.utils import vector_to_parameters
from torch.optim import SGD, Adam, AdamW

from cases import WHOLE, case
from dense import truth
from f3eo import F3EO, Coupled, Decoupled, Fitted, ModelSampled, PerSample, Ratio, Sign
from f3eo.extend import DecoupledPerTensor, Direct
from optimizer.helpers import batches, flat, gradient, losses, network, weights
from optimizer.reference import diagonal

LR = 1e-3
EUCLIDEAN = {"estimator": PerSample(), "strength": Fitted(0.04)}
"""For which the trace is that of the dense truth."""
BASE = {"sgd": (SGD, {"lr": LR}), "adam": (Adam, {"lr": LR}), "adamw": (AdamW, {"lr": LR})}
NETS = ["mlp", "cnn", "attention", "sequence_first"]


def structure_part(row, base, warm=0, **options):
    """What one step adds to that of the base on ∇L alone: (model before, difference)."""
    kind, settings = BASE[base]
    optimizer = F3EO(row.model, kind, **settings, **WHOLE | options)
    for _ in range(warm):
        optimizer.step(row.losses, *row.batch)
    before = copy.deepcopy(row.model)
    plain = kind(before.parameters(), **settings)
    plain.load_state_dict(copy.deepcopy(optimizer.base.state_dict()))
    alone = copy.deepcopy((before, plain))
    loss = copied(row, alone[0]).losses(*row.batch).mean()
    for p, g in zip(
        alone[0].parameters(), torch.autograd.grad(loss, list(alone[0].parameters())), strict=True
    ):
        p.grad = g
    alone[1].step()
    optimizer.step(row.losses, *row.batch)
    return before, weights(row.model) - weights(alone[0])


def copied(row, model):
    return type(row)(model, row.batch, row.likelihood)


def moved(row, model, direction):
    """The case at other weights."""
    other = copy.deepcopy(model)
    vector_to_parameters(weights(model) + direction, other.parameters())
    return copied(row, other)


def of_trace(row, before):
    """The trace as a function of the weights."""
    return lambda there: truth(there.model, there.losses, *there.batch).trace


def of_outputs(row, before):
    """(1/B) Σ_i ‖D Jᵢᵀ rᵢ‖ as a function of the weights, with D and rᵢ = ∂ℓ_i/∂f_i of `before`."""
    size = diagonal(before.parameters())
    samples = [[t[i : i + 1] for t in row.batch] for i in range(len(row.batch[0]))]
    outputs, residuals = [], []
    hook = before.register_forward_hook(lambda _, given, output: outputs.append(output))
    for sample in samples:
        loss = copied(row, before).losses(*sample).mean()
        residuals.append(torch.autograd.grad(loss, outputs.pop())[0])
    hook.remove()

    def quantity(there):
        total = 0.0
        for (x, *_), r in zip(samples, residuals, strict=True):
            linear = (there.model(x) * r).sum()
            parameters = list(there.model.parameters())
            g = torch.autograd.grad(linear, parameters, materialize_grads=True)
            total += (size * flat(g)).norm() / len(samples)
        return total

    return quantity


def slopes(row, before, part, quantity=of_trace, step=1e-4):
    """Slopes of L and of a quantity along `part`, by central differences of real values."""
    unit, of = part / part.norm(), quantity(row, before)
    values = []
    for sign in (1, -1):
        there = moved(row, before, sign * step * unit)
        t = truth(there.model, there.losses, *there.batch)
        values.append((float(t.losses.mean()), float(of(there))))
    (l1, t1), (l0, t0) = values
    return (l1 - l0) / (2 * step), (t1 - t0) / (2 * step)


@pytest.mark.parametrize("warm", [0, 3])
@pytest.mark.parametrize("base", BASE)
@pytest.mark.parametrize("net", NETS)
def test_the_structure_part_descends_the_trace_and_leaves_the_loss(net, base, warm):
    """On real values before and after a small move; a flipped sign turns the slope's."""
    row = case(net)
    before, part = structure_part(row, base, warm, **EUCLIDEAN)
    at = copied(row, before)
    here = truth(before, at.losses, *row.batch)
    first_order = float(here.gradient @ part / (here.gradient.norm() * part.norm()))
    assert abs(first_order) < 1e-6
    loss, trace = slopes(row, before, part)
    assert trace < -1e-2 * float(here.structure.norm())
    assert trace == pytest.approx(2 * float(here.structure @ part / part.norm()), rel=1e-2)
    assert abs(loss) < 1e-4 * float(here.gradient.norm())


@pytest.mark.parametrize("warm", [0, 3])
@pytest.mark.parametrize("base", BASE)
@pytest.mark.parametrize("net", NETS)
def test_that_of_the_default_descends_its_own_quantity_and_leaves_the_loss(net, base, warm):
    """In units of the weights, of the outputs' Jacobian alone."""
    row = case(net)
    before, part = structure_part(row, base, warm)
    at, size = copied(row, before), diagonal(before.parameters())
    here = truth(before, at.losses, *row.batch, power=1, diagonal=size, held=True)
    first_order = float(here.gradient @ part / (here.gradient.norm() * part.norm()))
    assert abs(first_order) < 1e-6
    loss, quantity = slopes(row, before, part, of_outputs)
    assert quantity < -1e-2 * float(here.structure.norm())
    assert quantity == pytest.approx(float(here.structure @ part / part.norm()), rel=1e-2)
    assert abs(loss) < 1e-4 * float(here.gradient.norm())


@pytest.mark.parametrize("rule", [Coupled(), Decoupled(), DecoupledPerTensor(), Direct()])
def test_every_rule_descends_the_trace(rule):
    row = network()
    options = {"estimator": PerSample(), "rule": rule, "strength": Ratio(3.0), **WHOLE}
    optimizer = F3EO(row.model, SGD, lr=LR, **options)
    before = copy.deepcopy(row.model)
    optimizer.step(row.losses, *row.batch)
    _, trace = slopes(row, before, weights(row.model) - weights(before))
    assert trace < 0


@pytest.mark.parametrize("estimator", [Sign(), ModelSampled()], ids=["sign", "model"])
def test_random_estimators_leave_the_loss_in_every_draw(estimator):
    row = network()
    closure = row.drawn if isinstance(estimator, ModelSampled) else row.losses
    optimizer = F3EO(
        row.model, SGD, lr=0.1, estimator=estimator, strength=Ratio(0.3), fraction=1, every=1
    )
    for batch in batches(5):
        g = flat(gradient(row.model, batch))
        optimizer.step(closure, *batch)
        part = flat(p.grad for p in row.model.parameters()) - g
        assert abs(g @ part) < 1e-10 * g.norm() * part.norm()
        assert part.norm() > 0.1 * g.norm()


def test_the_structure_part_leaves_the_loss_in_float32():
    """h off ∇L to the rounding of float32, with SGD in .grad itself."""
    model = network().model.float()
    optimizer = F3EO(model, SGD, lr=0.1, strength=Ratio(0.3), fraction=1, every=1)
    for batch in batches(10, dtype=torch.float32):
        g = gradient(model, batch)
        optimizer.step(losses(model), *batch)
        part = flat(p.grad - x for p, x in zip(model.parameters(), g, strict=True))
        g = flat(g)
        assert abs(g @ part) < 1e-6 * g.norm() * part.norm()
        assert part.norm() == pytest.approx(0.3 * float(g.norm()), rel=1e-4)


def test_per_tensor_is_orthogonal_in_every_tensor_and_another_method():
    found = {}
    for rule in (Decoupled(), DecoupledPerTensor()):
        row = network()
        optimizer = F3EO(row.model, SGD, lr=0.1, rule=rule, **EUCLIDEAN, **WHOLE)
        before = gradient(row.model, row.batch)
        optimizer.step(row.losses, *row.batch)
        parts = [p.grad - g for p, g in zip(row.model.parameters(), before, strict=True)]
        found[type(rule)] = [
            float((g * d).sum() / (g.norm() * d.norm())) for g, d in zip(before, parts, strict=True)
        ]
    assert max(map(abs, found[DecoupledPerTensor])) < 1e-12
    assert max(map(abs, found[Decoupled])) > 0.05


def test_per_tensor_in_a_metric_is_orthogonal_in_every_tensor_of_it():
    row = network()
    before, part = structure_part(row, "adam", 2, rule=DecoupledPerTensor(), **EUCLIDEAN)
    sizes = [p.numel() for p in before.parameters()]
    g = gradient(before, row.batch)
    for a, b in zip(g, part.split(sizes), strict=True):
        assert abs(float(a.flatten() @ b)) < 1e-9 * float(a.norm() * b.norm())


def test_a_structure_gradient_along_the_loss_gradient_adds_nothing():
    """One parameter: h is a multiple of g, what is left of it is rounding and not scaled up."""
    theta = torch.nn.Parameter(torch.tensor([2.0], dtype=torch.float64))
    other = torch.nn.Parameter(torch.tensor([2.0], dtype=torch.float64))
    x = torch.tensor([[0.3], [-0.4]], dtype=torch.float64)
    options = {"estimator": PerSample(), "strength": Ratio(1.0), **WHOLE}
    optimizer = F3EO([theta], SGD, lr=0.1, **options)
    plain = SGD([other], lr=0.1)
    for _ in range(5):
        plain.zero_grad()
        (other - x).pow(4).sum(1).mean().backward()
        plain.step()
        optimizer.step(lambda x: (theta - x).pow(4).sum(1), x)
    assert torch.allclose(theta, other, rtol=1e-12)


@pytest.mark.parametrize("base", ["sgd", "adam"])
def test_a_step_in_float32_descends_the_trace_as_well(base):
    """The part is taken from float32 weights, the trace from float64 ones."""
    kind, _ = BASE[base]
    model, plain = network().model.float(), network().model.float()
    batch = batches(1, 16, torch.float32)[0]
    for p, g in zip(plain.parameters(), gradient(plain, batch), strict=True):
        p.grad = g
    kind(plain.parameters(), lr=0.05).step()
    F3EO(model, kind, lr=0.05, **EUCLIDEAN, **WHOLE).step(losses(model), *batch)
    part = weights(model) - weights(plain)
    before = network()
    row = copied(before, before.model)
    row = type(row)(row.model, (batch[0].double(), batch[1]), row.likelihood)
    here = truth(row.model, row.losses, *row.batch)
    loss, trace = slopes(row, row.model, part)
    assert trace < -1e-2 * float(here.structure.norm())
    assert abs(loss) < 1e-4 * float(here.gradient.norm())
