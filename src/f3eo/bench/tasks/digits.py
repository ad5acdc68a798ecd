"""scikit-learn's digits: 1,797 scans of 8×8 pixels in ten classes."""

from dataclasses import replace
from functools import partial

import torch

from f3eo.bench.methods.bases import over
from f3eo.bench.models.mlp import mlp
from f3eo.bench.tasks.corruption import IMAGES, flat
from f3eo.bench.tasks.task import Data, Samples, Task

TRAIN = 600  # a third: few enough to overfit; 1,197 scans remain for a precise test


def load(known: int = TRAIN) -> Data:
    """The scans with pixels in [0, 1], in a fixed split.

    Args:
        known: number of scans to train on, at most 600; the 1,197 to test on stay the same.
    """
    from sklearn.datasets import load_digits  # imported here because it is slow

    x, y = load_digits(return_X_y=True)
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(0))
    pixels = torch.as_tensor(x, dtype=torch.float32)[order] / 16
    labels = torch.as_tensor(y, dtype=torch.int64)[order]
    return Data(Samples(pixels[:known], labels[:known]), Samples(pixels[TRAIN:], labels[TRAIN:]))


MLP = Task(
    name="digits-mlp",
    description="scikit-learn's digits, 600 scans to train on and 1,197 to test; MLP 64-256-256-10",
    load=load,
    model=partial(mlp, 64, 256, 256, 10),
    batch=100,
    budget=6_000,
    splits=2,
    target=0.96,
    corruptions=flat(IMAGES, 1, 8, 8),
    options={
        # best of 8 settings on held-out samples in results/euclidean, at three times the budget
        "sgd": {"lr": 0.128, "weight_decay": 2.33e-3},
        "adamw": {"lr": 3e-3, "weight_decay": 1e-2},
        "muon": {"lr": 1.66e-3, "weight_decay": 2.61e-3},
        "sam": {**over("muon"), "lr": 4.15e-2, "weight_decay": 0.83, "rho": 0.21},
        "f3eo": {**over("muon"), "lr": 1.66e-3, "weight_decay": 2.61e-3},
        # best of 4 settings on held-out samples, at width 100 and batch size 50
        "adam": {"lr": 3e-3},
        "sgd_free": {"lr": 3.0},
        "adamw_free": {"lr": 1e-2},
        "asam": {"lr": 0.3, "rho": 0.5},
        "gsam": {"lr": 0.3, "rho": 0.4},
        "wsam": {"lr": 0.3, "rho": 0.4},
        "fsam": {"lr": 0.3, "rho": 0.4},
        "looksam": {"lr": 0.1, "rho": 0.4},
        "newton_cg": {"radius": 0.1},
        "gauss_newton": {"damping": 10.0},
        "layerwise_gn": {"damping": 0.01},
        "lbfgs": {"lr": 0.3},
        "adahessian": {"lr": 3e-2},
        "sophia": {"lr": 0.2},
        "shampoo": {"lr": 0.3},
        "soap": {"lr": 1e-3},
        "psgd": {"lr": 1e-3},
        "psgd_newton": {"lr": 3e-3},
        "ivon": {"lr": 3.0},
    },
)

FULL_BATCH = replace(
    MLP,
    name="large-batch-digits",
    description="digits-mlp with all 600 training scans in every batch",
    batch=TRAIN,
    budget=1_000,
    target=0.95,
    options={},
)

FEW = replace(
    MLP,
    name="digits-few",
    description="digits-mlp with 100 labels: the first 100 of its 600 scans to train on",
    load=partial(load, 100),
    batch=20,
    budget=3_000,
    splits=4,
    target=0.88,
    probe=100,
    options={},
)

TASKS = (MLP, FULL_BATCH, FEW)
