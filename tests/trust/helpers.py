"""The table of optimizers that the tests here take, a model and batches."""

import torch
from torch import nn
from torch.optim import SGD, AdamW, Muon

from f3eo import F3EO, Categorical, Fixed
from f3eo.second_order import GaussNewton, LayerwiseGaussNewton, NewtonCG

F3EOS = {
    "sgd": (SGD, {"lr": 0.05, "momentum": 0.9, "weight_decay": 1e-3}),
    "adamw": (AdamW, {"lr": 0.01}),
    "muon": (Muon, {"lr": 0.01}),
}
SECOND = {"newton": NewtonCG, "gauss-newton": GaussNewton, "layerwise": LayerwiseGaussNewton}
ALL = [*F3EOS, *SECOND]


def net(bias=True):
    torch.manual_seed(0)
    layers = nn.Linear(5, 7, bias=bias), nn.Tanh(), nn.Dropout(0.2), nn.Linear(7, 3, bias=bias)
    return nn.Sequential(*layers).double()


def made(name, model=None, **options):
    """A model and its optimizer; h is measured at every other step."""
    model = net(bias=name != "muon") if model is None else model
    if name in SECOND:
        return model, SECOND[name](model, **options)
    kind, own = F3EOS[name]
    shared = {"every": 2, "fraction": 0.5, "generator": torch.Generator().manual_seed(3)}
    return model, F3EO(model, kind, strength=Fixed(0.1), **own | shared | options)


def batches(count, size=6):
    draw = torch.Generator().manual_seed(1)
    return [
        (
            torch.randn(size, 5, generator=draw, dtype=torch.float64),
            torch.randint(3, (size,), generator=draw),
        )
        for _ in range(count)
    ]


def losses(model):
    return lambda x, y: Categorical(model(x), y)


def run(model, optimizer, data):
    return [float(optimizer.step(losses(model), *batch)) for batch in data]


def flat(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])
