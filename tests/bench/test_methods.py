import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from f3eo.bench.methods import METHODS

COST = {"sgd": 1, "adamw": 1, "muon": 1, "sam": 2}


@pytest.fixture
def problem():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 8), nn.SiLU(), nn.Linear(8, 3))
    x, y = torch.randn(16, 5), torch.randint(3, (16,))
    return model, x, y


def losses_of(model):
    return lambda x, y: F.cross_entropy(model(x), y, reduction="none")


@pytest.mark.parametrize("name", METHODS)
def test_a_step_returns_the_mean_loss_detached_and_steps_descend(name, problem):
    model, x, y = problem
    stepper = METHODS[name].build(model, METHODS[name].options({"lr": 0.05}), 0)
    closure = losses_of(model)
    before = closure(x, y).mean()
    loss = stepper.step(closure, x, y)
    assert not loss.requires_grad and loss.shape == ()
    torch.testing.assert_close(loss, before.detach())
    for _ in range(30):
        stepper.step(closure, x, y)
    assert closure(x, y).mean() < 0.8 * before


@pytest.mark.parametrize("name", METHODS)
def test_the_schedule_reaches_every_parameter(name, problem):
    model, x, y = problem
    stepper = METHODS[name].build(model, METHODS[name].options(), 0)
    scheduled = [p for o in stepper.optimizers for g in o.param_groups for p in g["params"]]
    assert {id(p) for p in scheduled} == {id(p) for p in model.parameters()}
    before = copy.deepcopy(list(model.parameters()))
    for optimizer in stepper.optimizers:
        for group in optimizer.param_groups:
            group["lr"] = 0.0
    stepper.step(losses_of(model), x, y)
    for new, old in zip(model.parameters(), before, strict=True):
        torch.testing.assert_close(new, old, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", COST)
def test_the_price_is_the_number_of_gradients_taken(name, problem):
    model, x, y = problem
    stepper = METHODS[name].build(model, METHODS[name].options(), 0)
    calls = []

    def closure(x, y):
        calls.append(1)
        return losses_of(model)(x, y)

    stepper.step(closure, x, y)
    assert stepper.gradient_equivalents == COST[name] == len(calls)


def test_f3eo_pays_for_the_fraction_it_looks_at(problem):
    method = METHODS["f3eo"]
    for fraction in (0.25, 1.0):
        stepper = method.build(problem[0], method.options({"fraction": fraction}), 0)
        assert stepper.gradient_equivalents == pytest.approx((3 + 3 * fraction) / 3)


def test_sam_steps_along_the_gradient_at_the_perturbed_weights(problem):
    model, x, y = problem
    options = {"lr": 0.1, "momentum": 0.0, "weight_decay": 0.0, "rho": 0.3}
    here = [p.detach().clone() for p in model.parameters()]
    closure = losses_of(model)
    gradient = torch.autograd.grad(closure(x, y).mean(), list(model.parameters()))
    norm = torch.sqrt(sum(g.square().sum() for g in gradient))
    with torch.no_grad():
        for p, g in zip(model.parameters(), gradient, strict=True):
            p += 0.3 * g / norm
    there = torch.autograd.grad(closure(x, y).mean(), list(model.parameters()))
    with torch.no_grad():
        for p, old in zip(model.parameters(), here, strict=True):
            p.copy_(old)
    METHODS["sam"].build(model, options, 0).step(closure, x, y)
    for p, old, g in zip(model.parameters(), here, there, strict=True):
        torch.testing.assert_close(p.detach(), old - 0.1 * g)


def test_an_option_nobody_has_is_refused_with_the_ones_there_are():
    with pytest.raises(ValueError, match="sgd has no option 'rho'; it has lr, momentum"):
        METHODS["sgd"].options({"rho": 1})


def test_later_overrides_win():
    options = METHODS["sgd"].options({"lr": 1.0, "momentum": 0.5}, {"lr": 2.0})
    assert options == METHODS["sgd"].defaults | {"lr": 2.0, "momentum": 0.5}
