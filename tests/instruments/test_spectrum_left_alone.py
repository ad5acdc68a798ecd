"""Spectra and free energies leave a model as it was, and work where no graph is built."""

import random

import pytest
import torch
from torch import nn

from f3eo import Categorical
from f3eo.instruments import Operator, gram, spectrum
from f3eo.instruments.free_energy import (
    GaussianPrior,
    IsotropicNoise,
    Laplace,
    LogUniformPrior,
    MultiplicativeNoise,
    effect,
    free_energy,
)
from instruments.spectra import seeded


def by_posterior(posterior, prior):
    return lambda *given: free_energy(*given, prior, posterior=posterior).value


def moved(model, *given):
    update = [torch.full_like(p, 0.1) for p in model.parameters()]
    return effect(model, *given, GaussianPrior(1.0), update).value


MEASURED = {
    "gram": lambda *given: gram(*given).sum(),
    "operator": lambda *given: Operator(*given, "hessian").product(torch.ones(66).double()).sum(),
    "gram spectrum": lambda *given: spectrum(*given).top.sum(),
    "dense spectrum": lambda *given: spectrum(*given, of="hessian").top.sum(),
    "lanczos spectrum": lambda *given: spectrum(
        *given, method="lanczos", steps=5, probes=2, generator=seeded()
    ).nodes.sum(),
    "laplace": by_posterior(Laplace(), GaussianPrior()),
    "diagonal": by_posterior(Laplace("diagonal"), GaussianPrior(1.0)),
    "kronecker": by_posterior(Laplace("kronecker"), GaussianPrior(1.0)),
    "isotropic": by_posterior(IsotropicNoise(), GaussianPrior()),
    "multiplicative": by_posterior(MultiplicativeNoise(0.1), LogUniformPrior()),
    "effect": moved,
}


class Noisy(nn.Module):
    """Draws, counts in a buffer, and puts a new one in place of another."""

    def __init__(self):
        super().__init__()
        self.register_buffer("seen", torch.zeros(()))
        self.register_buffer("last", torch.zeros(()))

    def forward(self, x):
        self.seen.add_(len(x))
        self.last = torch.rand(())
        return nn.functional.dropout(x, 0.2)


@pytest.fixture
def given():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 2), Noisy()
    ).double()
    model[1].running_mean.normal_()
    model[1].eval()
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    x, y = torch.randn(6, 3).double(), torch.randint(2, (6,))
    return model, lambda x, y: Categorical(model(x), y), [(x[:4], y[:4]), (x[4:], y[4:])]


def states(model):
    return (
        {name: t.tolist() for name, t in model.state_dict().items()},
        [id(b) for b in model.buffers()],
        [id(p.grad) for p in model.parameters()],
        [p.grad.sum().item() for p in model.parameters()],
        [m.training for m in model.modules()],
        torch.get_rng_state().tolist(),
        random.getstate(),
    )


@pytest.mark.parametrize("name", MEASURED)
def test_the_model_is_left_alone_and_measured_alike_under_no_grad(name, given):
    before = states(given[0])
    found = float(MEASURED[name](*given))
    assert all(now == then for now, then in zip(states(given[0]), before, strict=True))
    with torch.no_grad():
        assert float(MEASURED[name](*given)) == found


@pytest.mark.parametrize("name", ["gram", "lanczos spectrum", "diagonal"])
def test_an_iterator_that_is_used_up_serves(name, given):
    model, closure, data = given
    assert float(MEASURED[name](model, closure, iter(data))) == float(MEASURED[name](*given))
