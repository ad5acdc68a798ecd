"""A multi-layer perceptron."""

from torch import nn

from f3eo.bench.models.model import Model, images


def build() -> nn.Module:
    """784-256-256-10 with SiLU."""
    return nn.Sequential(
        nn.Linear(784, 256), nn.SiLU(), nn.Linear(256, 256), nn.SiLU(), nn.Linear(256, 10)
    )


MLP = Model("mlp", "784-256-256-10, SiLU", 256, build, images(784, classes=10))
