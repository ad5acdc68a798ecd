"""Fused attention and recurrent kernels have no second derivative: their parts have."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dense import relative, truth
from f3eo import DoubleBackward, FiniteDifference, MiniBatch, PerSample
from optimizer.helpers import (
    ESTIMATORS,
    grads,
    losses,
    plain,
    stepped,
)


class Encoder(nn.Module):
    def __init__(self, dropout=0.0):
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, dropout, batch_first=True)
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        return self.head(self.layer(x).mean(1))


class Dot(nn.Module):
    def __init__(self):
        super().__init__()
        self.pack, self.head = nn.Linear(8, 24), nn.Linear(8, 3)

    def forward(self, x):
        q, k, v = self.pack(x).unflatten(-1, (3, 2, 4)).permute(2, 0, 3, 1, 4)
        z = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.head(z.transpose(1, 2).flatten(2).mean(1))


class Recurrent(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.layer, self.head = kind(8, 5, batch_first=True), nn.Linear(5, 3)

    def forward(self, x):
        return self.head(self.layer(x)[0].mean(1))


SEQUENCES = {
    "encoder": Encoder,
    "dot product": Dot,
    "lstm": lambda: Recurrent(nn.LSTM),
    "gru": lambda: Recurrent(nn.GRU),
}


def sequence(make):
    torch.manual_seed(0)
    model = make().double()
    return model, (torch.randn(4, 6, 8, dtype=torch.float64), torch.randint(3, (4,)))


@pytest.mark.parametrize("name", SEQUENCES)
def test_fused_kernels_are_differentiated_twice_in_training_mode(name):
    model, batch = sequence(SEQUENCES[name])
    assert model.training
    expected = truth(model, losses(model), *batch)
    optimizer = stepped(model, plain, batch, PerSample(DoubleBackward(), power=2))
    assert float(optimizer.trace) == pytest.approx(float(expected.trace), rel=1e-10)
    assert relative(grads(model), expected.gradient + expected.structure) < 1e-9


@pytest.mark.parametrize("name", ESTIMATORS)
@pytest.mark.parametrize("kind", SEQUENCES)
def test_fused_kernels_work_with_every_estimator_and_leave_the_choice_of_kernel(kind, name):
    model, batch = sequence((lambda: Encoder(0.1)) if kind == "encoder" else SEQUENCES[kind])
    flags = [
        f() for f in (torch.backends.cuda.flash_sdp_enabled, torch.backends.cudnn.is_available)
    ]
    optimizer = stepped(model, plain, batch, ESTIMATORS[name](), lr=0.1)
    assert optimizer.steps == 1 and optimizer.trace > 0
    assert flags[0] == torch.backends.cuda.flash_sdp_enabled() and torch.backends.cudnn.enabled


@pytest.mark.parametrize("kind", ["encoder", "lstm"])
def test_engines_agree_on_fused_kernels(kind):
    found = []
    for engine in (DoubleBackward(), FiniteDifference(central=True)):
        model, batch = sequence(SEQUENCES[kind])
        stepped(model, plain, batch, MiniBatch(engine))
        found.append(grads(model))
    assert relative(*found) < 1e-7


@pytest.mark.skipif(not torch.cuda.is_available(), reason="cuDNN needs a GPU")
@pytest.mark.parametrize("kind", SEQUENCES)
def test_fused_kernels_on_a_gpu(kind):
    found = []
    for device in ("cpu", "cuda"):
        model, batch = sequence(SEQUENCES[kind])
        stepped(model.to(device), plain, [t.to(device) for t in batch], MiniBatch())
        found.append(grads(model).cpu())
    assert relative(*found) < 1e-6
