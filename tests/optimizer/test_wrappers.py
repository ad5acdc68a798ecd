"""Bases that wrap others, with and without Optimizer.__init__; and those that cannot be a base."""

import copy

import pytest
import pytorch_optimizer as po
import torch
from torch.optim import SGD, Adam, AdamW, Optimizer, lr_scheduler

from dense import relative
from f3eo import F3EO, DoubleBackward, PerSample, Ratio
from optimizer.helpers import UNKNOWN, batches, losses, network, weights

pytestmark = pytest.mark.filterwarnings(UNKNOWN)


class Bare(Optimizer):
    """As timm's Lookahead was: no Optimizer.__init__, everything the inner one's."""

    def __init__(self, inner):
        self.inner = inner
        self.param_groups, self.defaults, self.state = inner.param_groups, inner.defaults, {}

    def step(self, closure=None):
        return self.inner.step(closure)

    def state_dict(self):
        return self.inner.state_dict()

    def load_state_dict(self, state_dict):
        self.inner.load_state_dict(state_dict)
        self.param_groups = self.inner.param_groups


def adamw(model):
    return AdamW(model.parameters(), lr=0.02)


WRAPPERS = {
    "bare": lambda m: Bare(adamw(m)),
    "lookahead": lambda m: po.Lookahead(adamw(m), k=2),
    "orthograd": lambda m: po.OrthoGrad(adamw(m)),
    "trac": lambda m: po.TRAC(adamw(m)),
    "pcgrad": lambda m: po.PCGrad(adamw(m)),
    "schedulefree": lambda m: training(po.ScheduleFreeWrapper(adamw(m))),
}


def training(base):
    base.train()
    return base


def run(model, optimizer, data):
    for batch in data:
        optimizer.step(losses(model), *batch)


@pytest.mark.parametrize("name", WRAPPERS)
def test_a_wrapper_makes_its_own_steps(name):
    """At strength 0 as in a plain loop, bit for bit."""
    model, alone = network().model, network().model
    optimizer = F3EO(model, WRAPPERS[name](model), strength=Ratio(0))
    plain = WRAPPERS[name](alone)
    for batch in batches(5):
        optimizer.step(losses(model), *batch)
        plain.zero_grad()
        losses(alone)(*batch).mean().backward()
        getattr(plain, "inner", plain).step()  # Bare has no hooks, which torch looks for
    assert torch.equal(weights(model), weights(alone))


@pytest.mark.parametrize("name", WRAPPERS)
def test_a_wrapper_is_trained_saved_and_scheduled(name):
    data = batches(8)
    model = network().model
    optimizer = F3EO(model, WRAPPERS[name](model), fraction=1)
    scheduler = lr_scheduler.StepLR(optimizer, 1, 0.5)
    run(model, optimizer, data[:4])
    scheduler.step()
    state = copy.deepcopy((model.state_dict(), optimizer.state_dict()))
    run(model, optimizer, data[4:])
    assert optimizer.steps == 8 and optimizer.param_groups[0]["lr"] == 0.01

    other = network().model
    resumed = F3EO(other, WRAPPERS[name](other), fraction=1)
    run(other, resumed, data[:1])
    other.load_state_dict(state[0])
    resumed.load_state_dict(state[1])
    if name == "schedulefree":
        resumed.base.train()
    run(other, resumed, data[4:])
    assert torch.equal(weights(model), weights(other))
    assert resumed.param_groups[0]["lr"] == 0.01


@pytest.mark.parametrize("name", ["bare", "lookahead"])
def test_a_wrapper_keeps_groups_that_are_outside_also_when_it_is_loaded_by_itself(name):
    model = network().model
    base, plain = (WRAPPERS[name](m) for m in (model, network().model))
    base.param_groups[0]["structure"] = False
    optimizer = F3EO(model, base)
    optimizer.base.load_state_dict(copy.deepcopy(plain.state_dict()))
    assert optimizer.param_groups[0]["structure"] is False
    run(model, optimizer, batches(1))


@pytest.mark.parametrize("name", ["lookahead", "orthograd"])
def test_the_structure_term_reaches_the_inner_optimizer(name):
    found = []
    for strength in (0.0, 0.5):
        model = network().model
        estimator = PerSample(DoubleBackward())
        base = WRAPPERS[name](model)
        run(model, F3EO(model, base, estimator=estimator, strength=Ratio(strength)), batches(2))
        found.append(weights(model))
    assert relative(*found) > 1e-4


class Own(SGD):
    def first_step(self):
        """As every optimizer of the SAM family has."""


EVALUATING = {
    "SAM": lambda m: po.SAM(m.parameters(), SGD, lr=0.1),
    "BSAM": lambda m: po.BSAM(m.parameters(), num_data=8, lr=0.1),
    "FriendlySAM": lambda m: po.FriendlySAM(m.parameters(), SGD, lr=0.1),
    "LookSAM": lambda m: po.LookSAM(m.parameters(), SGD, lr=0.1),
    "WSAM": lambda m: po.WSAM(m, m.parameters(), SGD, lr=0.1),
    "Own": lambda m: Own(m.parameters(), lr=0.1),
}


@pytest.mark.parametrize("name", EVALUATING)
def test_what_evaluates_twice_is_refused_by_name(name):
    model = network().model
    with pytest.raises(TypeError, match=rf"^{name} evaluates the loss several times.*use SGD"):
        F3EO(model, EVALUATING[name](model))


FAILING = {  # needs a closure, the graph of the gradient, matrices alone
    "AliG": lambda m: po.AliG(m.parameters(), lr=0.1),
    "AdaHessian": lambda m: po.AdaHessian(m.parameters(), lr=0.1),
    "SophiaH": lambda m: po.SophiaH(m.parameters(), lr=0.1),
    "SpectralSphere": lambda m: po.SpectralSphere(m.parameters(), lr=0.1),
}


@pytest.mark.parametrize("name", FAILING)
def test_what_fails_at_its_first_step_is_refused_by_name(name):
    model = network().model
    optimizer = F3EO(model, FAILING[name](model))
    before = weights(model)
    with pytest.raises(TypeError, match=rf"^{name} failed at its first step.*use SGD") as caught:
        optimizer.step(losses(model), *batches(1)[0])
    assert torch.equal(before, weights(model)) and caught.value.__cause__ is not None


def test_what_hooks_gradients_is_refused_by_them():
    model = network().model
    optimizer = F3EO(model, po.LOMO(model))
    with pytest.raises(ValueError, match=r"0.weight has a hook on its gradient.*LOMO"):
        optimizer.step(losses(model), *batches(1)[0])


def test_what_has_no_groups_is_refused_by_name():
    model = network().model
    with pytest.raises(TypeError, match=r"SafeFP16Optimizer has no parameter groups.*use SGD"):
        F3EO(model, po.SafeFP16Optimizer(adamw(model)))


def test_an_error_of_a_later_step_is_the_bases_own():
    class Failing(SGD):
        def step(self, closure=None):
            if self.param_groups[0]["lr"] == 0.5:
                raise ZeroDivisionError("of its own")
            return super().step(closure)

    model = network().model
    optimizer = F3EO(model, Failing, lr=0.1)
    run(model, optimizer, batches(1))
    optimizer.param_groups[0]["lr"] = 0.5
    with pytest.raises(ZeroDivisionError, match="of its own"):
        run(model, optimizer, batches(1))
    assert optimizer.steps == 1


@pytest.mark.parametrize("outer", [po.Lookahead, po.OrthoGrad])
def test_a_wrapper_around_f3eo_steps_with_a_closure_of_no_arguments(outer):
    model = network().model
    optimizer = outer(F3EO(model, Adam, lr=0.02))
    x, y = batches(1)[0]
    before = losses(model)(x, y).mean()
    for _ in range(10):
        optimizer.step(lambda: losses(model)(x, y))
    assert losses(model)(x, y).mean() < before
