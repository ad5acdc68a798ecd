"""The multilayer perceptron the small tasks share."""

from itertools import pairwise

from torch import nn


def mlp(*widths: int) -> nn.Sequential:
    """A perceptron with SiLU between its linear layers, e.g. `mlp(40, 100, 100, 10)`."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        layers += [nn.Linear(inputs, outputs), nn.SiLU()]
    return nn.Sequential(*layers[:-1])
