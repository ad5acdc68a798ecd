"""How near ordinary trainings come to the guard's alarm: what docs/performance.md says of it."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.optim import SGD, AdamW

from f3eo import F3EO, PerSample
from f3eo.fisher import differences

STEPS = 60


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        options = {"dropout": 0.1, "batch_first": True, "norm_first": True, "activation": "gelu"}
        self.embed = nn.Embedding(20, 16)
        self.layer = nn.TransformerEncoderLayer(16, 2, 32, **options)
        self.head = nn.Linear(16, 4)

    def forward(self, x):
        return self.head(self.layer(self.embed(x)).mean(1))


def mlp(act):
    return nn.Sequential(nn.Linear(10, 32), act(), nn.Linear(32, 32), act(), nn.Linear(32, 4))


def convolution():
    layers = nn.Conv2d(3, 8, 3), nn.GroupNorm(2, 8), nn.ReLU(), nn.MaxPool2d(2)
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(8 * 9, 4))


MODELS = {
    "tanh": (lambda: mlp(nn.Tanh), lambda: torch.randn(128, 10)),
    "relu": (lambda: mlp(nn.ReLU), lambda: torch.randn(128, 10)),
    "gelu": (lambda: mlp(nn.GELU), lambda: torch.randn(128, 10)),
    "convolution": (convolution, lambda: torch.randn(128, 3, 8, 8)),
    "attention": (Attention, lambda: torch.randint(20, (128, 6))),
}
BASES = {"sgd": (SGD, {"lr": 0.1, "momentum": 0.9}), "adamw": (AdamW, {"lr": 3e-3})}


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_ordinary_training_stays_a_fifth_away_from_an_alarm(name, base, dtype, monkeypatch):
    found = []

    def watched(*given):
        found.append(float(mismatch(*given)))
        return torch.tensor(found[-1])

    mismatch = differences.sample_mismatch
    monkeypatch.setattr(differences, "sample_mismatch", watched)
    torch.manual_seed(0)
    make, draw = MODELS[name]
    model, x, y = make().to(dtype), draw(), torch.randint(4, (128,))
    x = x.to(dtype) if x.is_floating_point() else x
    kind, options = BASES[base]
    optimizer = F3EO(model, kind, estimator=PerSample(), fraction=1, every=1, **options)

    def losses(x, y):
        return F.cross_entropy(model(x), y, reduction="none")

    for _ in range(STEPS):
        part = torch.randperm(128)[:32]
        optimizer.step(losses, x[part], y[part])
    assert len(found) > STEPS / 4 and 0 < max(found) < 0.2
