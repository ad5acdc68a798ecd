"""The multi-layer perceptron of the priced models and of the small tasks."""

from collections.abc import Callable
from functools import partial
from itertools import pairwise

from torch import nn

from f3eo.bench.models.model import Model, images


def mlp(*widths: int, activation: Callable[[], nn.Module] = nn.SiLU) -> nn.Sequential:
    """Linear layers with an activation between them, e.g. `mlp(40, 100, 100, 10)`.

    Args:
        widths: numbers of inputs, of units of the hidden layers, and of outputs.
        activation: () -> the module between two layers; default SiLU.
    """
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        layers += [nn.Linear(inputs, outputs), activation()]
    return nn.Sequential(*layers[:-1])


MLP = Model(
    "mlp", "784-256-256-10, SiLU", 256, partial(mlp, 784, 256, 256, 10), images(784, classes=10)
)
