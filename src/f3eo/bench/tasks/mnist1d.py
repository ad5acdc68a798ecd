"""MNIST-1D (arXiv 2011.14439): digits as noisy, shifted curves of 40 points."""

from functools import partial

import torch
from torch import nn

from f3eo.bench.methods.bases import over
from f3eo.bench.models.mlp import mlp
from f3eo.bench.tasks.corruption import TABLE
from f3eo.bench.tasks.task import Data, Samples, Task


def load() -> Data:
    """The standard set, generated from its own fixed seed, without a download."""
    from mnist1d.data import get_dataset_args, make_dataset  # imported here because it is slow

    raw = make_dataset(get_dataset_args())

    def samples(x: str, y: str) -> Samples:
        return Samples(
            torch.as_tensor(raw[x], dtype=torch.float32), torch.as_tensor(raw[y], dtype=torch.int64)
        )

    return Data(samples("x", "y"), samples("x_test", "y_test"))


def cnn() -> nn.Module:
    """Three 1-D convolutions of 32 channels, the mean over positions, and a linear layer."""
    layers: list[nn.Module] = []
    for inputs, stride in ((1, 2), (32, 2), (32, 1)):
        layers += [nn.Conv1d(inputs, 32, 5, stride, padding=2), nn.GroupNorm(4, 32), nn.SiLU()]
    return nn.Sequential(
        nn.Unflatten(1, (1, -1)), *layers, nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(32, 10)
    )


MLP = Task(
    name="mnist1d-mlp",
    description="MNIST-1D, 4,000 curves to train on and 1,000 to test; MLP 40-256-256-10",
    load=load,
    model=partial(mlp, 40, 256, 256, 10),
    batch=100,
    budget=10_000,
    target=0.72,
    corruptions=TABLE,
    options={  # best of 8 settings in results/euclidean, at three times the budget
        "sgd": {"lr": 0.562, "weight_decay": 3.29e-4},
        "adamw": {"lr": 7.66e-3, "weight_decay": 0.134},
        "muon": {"lr": 2.05e-2, "weight_decay": 0.185},
        "sam": {**over("muon"), "lr": 3.44e-2, "weight_decay": 0.371, "rho": 0.256},
        "f3eo": {**over("muon"), "lr": 2.05e-2, "weight_decay": 0.185},
        "bsam": {"num_data": 4000},  # the number of training samples
        "ivon": {"ess": 4000},
    },
)

CNN = Task(
    name="mnist1d-cnn",
    description="MNIST-1D, 4,000 curves to train on and 1,000 to test; three 1-D convolutions",
    load=load,
    model=cnn,
    batch=100,
    budget=2_500,
    target=0.97,
    probe=500,
    corruptions=TABLE,
)

TASKS = (MLP, CNN)
