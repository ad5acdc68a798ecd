"""A small network, its data and its optimizer, for the loops of others."""

import torch
import torch.nn.functional as F
from torch import nn
from torch.optim import SGD
from torch.utils.data import DataLoader, TensorDataset

from f3eo import F3EO


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(10, 16), nn.Tanh(), nn.Linear(16, 3)).double()


def batch(count=8):
    draw = torch.Generator().manual_seed(1)
    x = torch.randn(count, 10, generator=draw, dtype=torch.float64)
    return x, torch.randint(3, (count,), generator=draw)


def loader(count=44):
    return DataLoader(TensorDataset(*batch(count)), batch_size=8)


def optimizer_of(model):
    draw = torch.Generator().manual_seed(5)
    return F3EO(model, SGD, lr=0.1, momentum=0.9, every=2, generator=draw)


def losses_of(model):
    return lambda x, y: F.cross_entropy(model(x), y, reduction="none")


def vector(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])
