import copy
import importlib

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from f3eo.bench.methods import METHODS, USUAL

BROKEN = ("bsam",)
"""Cannot take a first step: see its note and `test_health`."""
SOUND = [name for name in METHODS if name not in BROKEN]
PERTURBED = ("ivon",)
"""Look at the loss nowhere but at perturbed weights."""
PARTIAL = {"partial_sam": 4}
"""Look at so many of 16 samples before the step."""
pytestmark = [
    pytest.mark.filterwarnings("ignore:Using backward.. with create_graph=True"),
    pytest.mark.filterwarnings("ignore:Learning rate changed between steps"),
]


@pytest.fixture
def problem():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 8), nn.SiLU(), nn.Linear(8, 3))
    x, y = torch.randn(16, 5), torch.randint(3, (16,))
    return model, x, y


def losses_of(model):
    return lambda x, y: F.cross_entropy(model(x), y, reduction="none")


RATES = {"sgd_free": 1.0, "sophia": 1.0, "shampoo": 0.3, "ivon": 0.5}


@pytest.mark.parametrize("name", SOUND)
def test_a_step_returns_the_mean_loss_detached_and_steps_descend(name, problem):
    model, x, y = problem
    rate = {"lr": RATES.get(name, 0.05)}
    stepper = METHODS[name].build(model, METHODS[name].options(rate), 0)
    closure = losses_of(model)
    first = closure(x, y).detach()
    before = first.mean()
    loss = stepper.step(closure, x, y)
    assert not loss.requires_grad and loss.shape == ()
    if name in PERTURBED:
        assert loss != before
    else:
        part = PARTIAL.get(name, len(x))
        torch.testing.assert_close(loss, first[:part].mean())
    for _ in range(30):
        stepper.step(closure, x, y)
    stepper.rest()
    assert closure(x, y).mean() < 0.8 * before


@pytest.mark.parametrize("name", SOUND)
def test_the_schedule_reaches_every_parameter(name, problem):
    model, x, y = problem
    stepper = METHODS[name].build(model, METHODS[name].options(), 0)
    if name.endswith("_free"):
        assert stepper.optimizers == ()
        return
    scheduled = [p for o in stepper.optimizers for g in o.param_groups for p in g["params"]]
    assert {id(p) for p in scheduled} == {id(p) for p in model.parameters()}
    before = copy.deepcopy(list(model.parameters()))
    for optimizer in stepper.optimizers:
        for group in optimizer.param_groups:
            group["lr"] = 0.0
    stepper.step(losses_of(model), x, y)
    for new, old in zip(model.parameters(), before, strict=True):
        torch.testing.assert_close(new, old, rtol=0, atol=1e-6)


def test_every_entry_says_where_it_is_from_and_what_it_is():
    for name, method in METHODS.items():
        assert method.name == name and method.order in (1, 2, 3)
        assert method.source.version, f"{name}: {method.source.package} is not installed"
        module, _, kind = method.source.name.rpartition(".")
        assert hasattr(importlib.import_module(module), kind)
        assert "lr" in method.defaults and method.kind and method.needs and method.source.paper
    assert set(USUAL) < set(METHODS)


def test_a_schedule_free_method_is_measured_at_its_average_and_trained_elsewhere(problem):
    model, x, y = problem
    stepper = METHODS["sgd_free"].build(model, METHODS["sgd_free"].options(), 0)
    for _ in range(5):
        stepper.step(losses_of(model), x, y)
    trained = copy.deepcopy(model.state_dict())
    stepper.rest()
    assert not torch.allclose(model[0].weight, trained["0.weight"], atol=1e-3)
    stepper.resume()
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, trained[name])


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
    METHODS["sam"].build(model, METHODS["sam"].options(options), 0).step(closure, x, y)
    for p, old, g in zip(model.parameters(), here, there, strict=True):
        torch.testing.assert_close(p.detach(), old - 0.1 * g)


def test_an_option_nobody_has_is_refused_with_the_ones_there_are():
    with pytest.raises(ValueError, match="sgd has no option 'rho'; it has lr, momentum"):
        METHODS["sgd"].options({"rho": 1})


def test_later_overrides_win():
    options = METHODS["sgd"].options({"lr": 1.0, "momentum": 0.5}, {"lr": 2.0})
    assert options == METHODS["sgd"].defaults | {"lr": 2.0, "momentum": 0.5}
