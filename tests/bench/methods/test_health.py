import pytest
import torch
from torch import nn

from f3eo.bench.methods import METHODS, health
from f3eo.bench.methods.health import examine
from f3eo.bench.methods.method import GradientStepper, Method

pytestmark = [
    pytest.mark.filterwarnings("ignore:Using backward.. with create_graph=True"),
    pytest.mark.filterwarnings("ignore:Learning rate changed between steps"),
]
WRONG = {  # what is known to be wrong with a peer, as the checks put it
    "bsam": "raises in its first step: ",
    "psgd": "raises where the gradient is zero: PrecondInitError",
    "psgd_newton": "raises where the gradient is zero: PrecondInitError",
}


@pytest.mark.parametrize("name", METHODS)
def test_every_method_is_sound_or_known_not_to_be(name):
    found = examine(name)
    if name in WRONG:
        assert len(found.problems) == 1 and found.problems[0].startswith(WRONG[name])
    else:
        assert not found.problems


@pytest.mark.parametrize("name, nan", [("sgd", "spreads"), ("f3eo", "skipped"), ("soap", "raises")])
@pytest.mark.filterwarnings("ignore:the loss is not finite")
def test_what_a_nan_does_is_noted(name, nan):
    assert examine(name).nan == nan


class Wrong(GradientStepper):
    """SGD with something wrong in it."""

    def __init__(self, model, lr, fault):
        super().__init__(torch.optim.SGD(model.parameters(), lr=lr))
        self.model, self.fault = model, fault

    def step(self, closure, x, y):
        if self.fault == "blind":
            with torch.no_grad():
                closure(x, y)
        if self.fault == "foreign":
            closure(x + 1, y)
        loss = super().step(closure, x, y)
        with torch.no_grad():
            for p in self.model.parameters():
                if self.fault == "sign":
                    p.add_(p.grad, alpha=2 * self.optimizers[0].param_groups[0]["lr"])
                elif self.fault == "drift":
                    p.add_(1e-4)
        if self.fault == "mode":
            self.model.eval()
        return closure(x, y).mean() if self.fault == "graph" else loss


@pytest.mark.parametrize(
    "fault, message",
    [
        ("sign", "moves uphill on least squares"),
        ("sign", "does not descend on logistic regression"),
        ("drift", "the parameters move where the gradient is zero"),
        ("drift", "the parameters move at learning rate zero"),
        ("blind", "called with gradients switched off"),
        ("foreign", "samples that are not in the batch"),
        ("mode", "left in evaluation mode"),
        ("graph", "the loss of a step is"),
    ],
)
def test_a_fault_is_found(fault, message, monkeypatch):
    def build(model, options, seed):
        return Wrong(model, options["lr"], fault)

    fake = Method("fake", "", "", 1, "", "", METHODS["sgd"].source, {"lr": 0.1}, build)
    monkeypatch.setitem(METHODS, "fake", fake)
    assert any(message in problem for problem in examine("fake").problems)


def test_nothing_is_drawn_from_the_global_generator():
    before = torch.get_rng_state()
    examine("ivon")
    assert torch.equal(torch.get_rng_state(), before)
    assert isinstance(health._Trial("sgd", health._logistic).model, nn.Linear)
