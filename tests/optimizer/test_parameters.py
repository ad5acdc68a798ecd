"""Parameters of every kind: maximized, frozen, unused, out of the structure term, odd in layout."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.optim import SGD, Adam, AdamW, Muon

from cases import WHOLE, case
from dense import relative, truth
from f3eo import (
    F3EO,
    ByRow,
    Cap,
    Coupled,
    Decoupled,
    DoubleBackward,
    FiniteDifference,
    Fitted,
    Fixed,
    MiniBatch,
    PerSample,
    Ratio,
    Sign,
)
from f3eo.extend import Direct
from optimizer.helpers import batches, flat, gradient, losses, network, weights

BASE = {
    "sgd": (SGD, {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.1}),
    "adamw": (AdamW, {"lr": 0.02, "weight_decay": 0.1}),
}
ESTIMATORS = {
    "default": lambda: None,
    "exact": PerSample,
    "sign": Sign,
    "batch": lambda: MiniBatch(FiniteDifference()),
}


def trained(model, base="sgd", steps=5, closure=None, parameters=None, **options):
    kind, settings = BASE[base]
    optimizer = F3EO(parameters or model, kind, **settings, **WHOLE | options)
    for batch in batches(steps):
        optimizer.step(closure or losses(model), *batch)
    return optimizer


# Maximize.


@pytest.mark.parametrize("rule", [Decoupled(), Coupled(), Direct()])
@pytest.mark.parametrize("base", BASE)
@pytest.mark.parametrize("parts", [{"power": 2}, {"metric": ByRow(), "hold_residuals": True}])
def test_maximizing_mirrors_minimizing_the_negative(base, rule, parts):
    """Squared norms do not know the sign of the loss: both descend the same trace."""
    up, down = network().model, network().model
    options = {
        "rule": rule,
        "estimator": PerSample(DoubleBackward(), **parts),
        "strength": Cap(0.04),
    }
    trained(up, base, maximize=True, **options)
    trained(down, base, closure=lambda x, y: -losses(down)(x, y), **options)
    assert relative(weights(up), weights(down)) < 1e-12


@pytest.mark.parametrize("base", BASE)
def test_maximizing_the_likelihood_weighs_as_minimizing_its_negative(base):
    """`Fitted` takes the probability of the labels, whichever way it is put."""
    up, down = network().model, network().model
    exact = {"estimator": PerSample(DoubleBackward()), "strength": Fitted(0.04)}
    trained(up, base, maximize=True, closure=lambda x, y: -losses(up)(x, y), **exact)
    trained(down, base, **exact)
    assert relative(weights(up), weights(down)) < 1e-12


def test_maximizing_raises_the_loss_and_descends_the_trace():
    row = network()
    options = {"estimator": PerSample(), "strength": Cap(0.04), **WHOLE}
    optimizer = F3EO(row.model, SGD, lr=0.05, maximize=True, **options)
    g = flat(gradient(row.model, row.batch))
    h = truth(row.model, row.losses, *row.batch).structure
    before = weights(row.model)
    optimizer.step(row.losses, *row.batch)
    moved = weights(row.model) - before
    assert moved @ g > 0
    assert (moved - (moved @ g) / (g @ g) * g) @ h < 0


def test_groups_may_pull_in_opposite_directions():
    row = network()
    first, last = row.model[0], nn.Sequential(*row.model[1:])
    groups = [{"params": list(first.parameters()), "maximize": True}, {"params": last.parameters()}]
    options = {"estimator": PerSample(), "strength": Ratio(0.5), **WHOLE}
    optimizer = F3EO(groups, SGD, lr=0.1, **options)
    g = gradient(row.model, row.batch)
    before = weights(row.model)
    optimizer.step(row.losses, *row.batch)
    moved = weights(row.model) - before
    uphill = flat([-g[0], -g[1], *g[2:]])
    part = moved + 0.1 * uphill
    assert abs(part @ uphill) < 1e-9 * part.norm() * uphill.norm()
    assert part @ truth(row.model, row.losses, *row.batch).structure < 0


# Frozen, unused, out of the structure term.


@pytest.mark.parametrize("name", ESTIMATORS)
@pytest.mark.parametrize("base", BASE)
def test_frozen_parameters_stay_and_the_rest_is_trained_as_if_they_were_constants(base, name):
    row = case("partly_frozen")
    frozen = row.model[2].weight.clone()
    kind, settings = BASE[base]
    optimizer = F3EO(row.model, kind, **WHOLE | settings, estimator=ESTIMATORS[name]())
    for _ in range(3):
        optimizer.step(row.losses, *row.batch)
    assert torch.equal(row.model[2].weight, frozen)
    assert row.model[2].weight.grad is None
    assert all(p.grad is not None for p in row.model.parameters() if p.requires_grad)


def test_a_parameter_that_thaws_joins_in():
    """In the loss at once, in the structure term at the next measurement."""
    row = case("partly_frozen")
    thawed = row.model[2].weight
    optimizer = F3EO(row.model, SGD, lr=0.02, every=2, fraction=1, strength=Ratio(0.3))
    optimizer.step(row.losses, *row.batch)
    thawed.requires_grad_(True)
    for measured in (False, True):
        before = thawed.detach().clone()
        (own,) = torch.autograd.grad(row.losses(*row.batch).mean(), thawed)
        optimizer.step(row.losses, *row.batch)
        assert not torch.equal(thawed, before)
        assert torch.equal(thawed.grad, own) == (not measured)
        if measured:
            assert relative(thawed.grad, own) > 1e-2


@pytest.mark.parametrize("rule", [Decoupled(), Coupled(), Direct()])
@pytest.mark.parametrize("name", ESTIMATORS)
@pytest.mark.parametrize("base", BASE)
def test_the_base_does_not_touch_a_parameter_that_the_loss_does_not_use(base, name, rule):
    """Its .grad is None, as after backward(), so weight decay and momentum leave it too."""
    model = network().model
    model.register_parameter("unused", nn.Parameter(torch.ones(3, dtype=torch.float64)))
    optimizer = trained(model, base, rule=rule, estimator=ESTIMATORS[name](), every=2)
    assert model.unused.tolist() == [1.0, 1.0, 1.0]
    assert model.unused.grad is None
    assert not optimizer.base.state.get(model.unused)


@pytest.mark.parametrize("base", BASE)
def test_a_parameter_used_now_and_then_is_touched_only_then(base):
    model = network().model
    model.register_parameter("scale", nn.Parameter(torch.ones((), dtype=torch.float64)))
    kind, settings = BASE[base]
    optimizer = F3EO(model, kind, **settings, fraction=1, every=3)
    for k, batch in enumerate(batches(6)):
        before = model.scale.clone()

        def closure(x, y, used=k % 2 == 0):
            return F.cross_entropy(model(x) * (model.scale if used else 1.0), y, reduction="none")

        optimizer.step(closure, *batch)
        assert torch.equal(before, model.scale) == (k % 2 == 1)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_a_group_out_of_the_structure_term_is_trained_on_the_loss_alone(name):
    """It takes no part in the trace, in h and in the projection."""
    row = network()
    inside, outside = list(row.model[0].parameters()), list(row.model[2:].parameters())
    groups = [{"params": inside}, {"params": outside, "structure": False}]
    signs = torch.Generator().manual_seed(1)
    options = {"lr": 0.1, "strength": Ratio(0.3), "generator": signs}
    optimizer = F3EO(groups, SGD, estimator=ESTIMATORS[name](), **WHOLE | options)
    g = gradient(row.model, row.batch)
    optimizer.step(row.losses, *row.batch)
    assert relative(flat(p.grad for p in outside), flat(g[2:])) < 1e-12
    part = flat(p.grad - x for p, x in zip(inside, g[:2], strict=True))
    assert abs(part @ flat(g[:2])) < 1e-9 * part.norm() * flat(g[:2]).norm()
    assert part.norm() == pytest.approx(0.3 * float(flat(g[:2]).norm()), rel=1e-9)

    alone = network()
    for p in alone.model[2:].parameters():
        p.requires_grad_(False)
    signs.manual_seed(1)
    other = F3EO(alone.model, SGD, estimator=ESTIMATORS[name](), **WHOLE | options)
    other.step(alone.losses, *alone.batch)
    assert (
        relative(flat(p.grad for p in inside), flat(p.grad for p in alone.model[0].parameters()))
        < 1e-6
    )
    assert float(optimizer.trace) == pytest.approx(float(other.trace), rel=1e-9)


@pytest.mark.parametrize("base", BASE)
def test_with_every_group_out_of_it_the_base_is_left(base):
    model, alone = network().model, network().model
    group = [{"params": model.parameters(), "structure": False}]
    optimizer = trained(model, base, parameters=group)
    kind, settings = BASE[base]
    plain = kind(alone.parameters(), **settings)
    for batch in batches(5):
        for p, g in zip(alone.parameters(), gradient(alone, batch), strict=True):
            p.grad = g
        plain.step()
    assert torch.equal(weights(model), weights(alone))
    assert optimizer.trace is None


def test_muon_for_matrices_and_another_base_for_the_rest():
    """Two optimizers over one model, each with the other's parameters as constants."""
    row = network()
    matrices = [p for p in row.model.parameters() if p.ndim == 2]
    rest = [p for p in row.model.parameters() if p.ndim != 2]
    with pytest.warns(UserWarning, match="no metric of Muon"):
        two = (
            F3EO(matrices, Muon, lr=0.02, fraction=1, every=1),
            F3EO(rest, Adam, lr=0.02, fraction=1, every=1),
        )
    first = row.losses(*row.batch).mean()
    for _ in range(20):
        for optimizer in two:
            optimizer.step(row.losses, *row.batch)
    assert row.losses(*row.batch).mean() < 0.8 * first


# Odd tensors.


@pytest.mark.parametrize("base", BASE)
def test_non_contiguous_parameters_are_trained_as_contiguous_ones(base):
    model, other = network().model, network().model
    for layer in other[::2]:
        layer.weight = nn.Parameter(layer.weight.detach().T.contiguous().T)
        assert not layer.weight.is_contiguous()
    trained(model, base, estimator=PerSample(DoubleBackward(), power=2))
    trained(other, base, estimator=PerSample(DoubleBackward(), power=2))
    assert relative(weights(other), weights(model)) < 1e-12
    assert not other[0].weight.is_contiguous()


@pytest.mark.parametrize("name", ESTIMATORS)
def test_parameters_without_dimension_are_trained(name):
    model = network().model
    scale = nn.Parameter(torch.tensor(0.7, dtype=torch.float64))
    groups = [*model.parameters(), scale]

    def closure(x, y):
        return F.cross_entropy(model(x) * scale, y, reduction="none")

    optimizer = trained(model, closure=closure, parameters=groups, estimator=ESTIMATORS[name]())
    assert scale.shape == () and scale != 0.7
    assert optimizer.skipped == 0


@pytest.mark.parametrize("name", ESTIMATORS)
@pytest.mark.parametrize("base", BASE)
def test_two_dtypes_in_one_model(base, name):
    model = network().model
    model[0].float()

    def closure(x, y):
        return F.cross_entropy(model[1:](model[0](x.float()).double()), y, reduction="none")

    options = {"generator": torch.Generator().manual_seed(1), "estimator": ESTIMATORS[name]()}
    trained(model, base, closure=closure, **options)
    assert {p.dtype for p in model.parameters()} == {torch.float32, torch.float64}

    same = network().model
    options = {"generator": torch.Generator().manual_seed(1), "estimator": ESTIMATORS[name]()}
    trained(same, base, **options)
    assert relative(weights(model), weights(same)) < 2e-3


@pytest.mark.parametrize("kind", [SGD, Adam])
def test_a_tensor_learning_rate_is_the_number(kind):
    number, tensor = network().model, network().model
    for model, lr in ((number, 0.05), (tensor, torch.tensor(0.05, dtype=torch.float64))):
        optimizer = F3EO(model, kind, lr=lr, fraction=1, every=1)
        for batch in batches(4):
            optimizer.step(losses(model), *batch)
    assert relative(weights(tensor), weights(number)) < 1e-12


@pytest.mark.parametrize("last", [0.0, 1e-3, 1e-2])
@pytest.mark.parametrize("kind", [SGD, Adam])
def test_learning_rates_of_groups_belong_to_the_metric(kind, last):
    """What leaves the loss alone is orthogonal after every part has got its own learning rate."""
    row, alone = network(), network()

    def groups(model):
        return [
            {"params": model[0].parameters(), "lr": 1e-3},
            {"params": model[2:].parameters(), "lr": last},
        ]

    options = {"estimator": PerSample(), "strength": Ratio(0.5), **WHOLE}
    optimizer = F3EO(groups(row.model), kind, **options)
    plain = kind(groups(alone.model))
    g = gradient(alone.model, row.batch)
    for p, value in zip(alone.model.parameters(), g, strict=True):
        p.grad = value
    plain.step()
    optimizer.step(row.losses, *row.batch)
    part, g = weights(row.model) - weights(alone.model), flat(g)
    start = network()
    h = truth(start.model, start.losses, *row.batch).structure
    assert part.norm() > 1e-5 and part @ h < 0
    assert abs(part @ g) < 1e-8 * part.norm() * g.norm()


def test_a_bare_list_of_tensors_is_a_model():
    weight = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    options = {"estimator": PerSample(), "strength": Fixed(0.1), "rule": Coupled(), **WHOLE}
    optimizer = F3EO([weight], SGD, lr=0.1, **options)
    x, y = batches(1)[0]
    g = torch.autograd.grad(F.cross_entropy(x @ weight, y), weight)[0]
    optimizer.step(lambda x, y: F.cross_entropy(x @ weight, y, reduction="none"), x, y)
    assert relative(weight.grad, g) > 1e-3
