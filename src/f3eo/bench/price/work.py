"""A method at work on a model: everything one step needs."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from f3eo.bench.methods.method import Stepper
from f3eo.bench.models import Model
from f3eo.bench.price.methods import Method

SEED = 0
"""Of weights and data, the same for every method."""


@dataclass(frozen=True)
class Work:
    """A method, a model of its own and the batch it steps on, always the same.

    Args:
        model: where the loss comes from.
        module: the model's module.
        stepper: the method's.
        x, y: inputs and targets, samples in dimension 0.
    """

    model: Model
    module: nn.Module
    stepper: Stepper
    x: Tensor
    y: Tensor

    def closure(self, x: Tensor, y: Tensor) -> Tensor:
        """Per-sample losses, with their graph."""
        return self.model.losses(self.module, x, y)

    def forward(self) -> None:
        """One forward pass without gradients."""
        with torch.no_grad():
            self.closure(self.x, self.y)

    def prepare(self, steps: int) -> None:
        """Take steps, and leave no gradients."""
        for _ in range(steps):
            self.step()
        for parameter in self.module.parameters():
            parameter.grad = None

    def step(self) -> Tensor:
        """One step of the method; the mean loss."""
        return self.stepper.step(self.closure, self.x, self.y)


def start(model: Model, method: Method, batch: int) -> Work:
    """A fresh module, the method on it, and a batch of so many samples."""
    module = model.build(SEED)
    return Work(model, module, method.build(module), *model.data(batch, SEED))
