"""Every instrument leaves a model alone: parameters, .grad, buffers, random states, modes."""

import random

import numpy
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dense import truth
from f3eo.instruments import alignment, diagonal, memorisation, noise_scale, trace
from instruments.truths import close

MEASURED = {
    "trace": lambda *given: trace(*given).value,
    "diagonal": lambda *given: sum(float(t.sum()) for t in diagonal(*given).values()),
    "noise scale": lambda *given: noise_scale(*given).squared.sum(1).mean(),
    "memorisation": lambda *given: memorisation(*given).norms.square().mean(),
    "alignment": lambda *given: alignment(*given).gradient_norm,
}
"""A number that the loop over samples knows: Tr F, and for the last ‖g‖."""


class Counts(nn.Module):
    """Writes into a buffer, puts a new one in place of another, and draws."""

    def __init__(self):
        super().__init__()
        self.register_buffer("seen", torch.zeros(()))
        self.register_buffer("last", torch.zeros(()))

    def forward(self, x):
        self.seen.add_(len(x))
        self.last = torch.rand(())
        return x


@pytest.fixture
def given():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 2), Counts()
    ).double()
    model[1].running_mean.normal_()
    model[1].running_var.uniform_(0.5, 2)
    model.eval()
    model[4].train()
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    x, y = torch.randn(6, 3).double(), torch.randint(2, (6,))
    closure = lambda x, y: F.cross_entropy(model(x), y, reduction="none")  # noqa: E731
    return model, closure, [(x[:4], y[:4]), (x[4:], y[4:])]


def states(model):
    return (
        {name: t.tolist() for name, t in model.state_dict().items()},
        [id(b) for b in model.buffers()],
        [id(p.grad) for p in model.parameters()],
        [m.training for m in model.modules()],
        torch.get_rng_state().tolist(),
        random.getstate(),
        numpy.random.get_state()[1].tolist(),
    )


@pytest.mark.parametrize("name", MEASURED)
def test_it_is_measured_in_its_mode_and_left_alone(name, given):
    model, closure, data = given
    before = states(model)
    found = MEASURED[name](model, closure, data)
    for now, then in zip(states(model), before, strict=True):
        assert now == then
    expected = truth(model, closure, *(torch.cat(t) for t in zip(*data, strict=True)))
    close(found, expected.gradient.norm() if name == "alignment" else expected.trace)
