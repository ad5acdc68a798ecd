"""A variant with a model and a batch: everything that one step needs."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from f3eo.bench.methods.method import Stepper
from f3eo.bench.models import Model
from f3eo.bench.price.variants import SEED, Variant
from f3eo.bench.run.place import PROCESSOR, Place


@dataclass(frozen=True)
class Work:
    """A variant, a module of its own, and the one batch of all its steps.

    Args:
        model: gives the loss.
        module: the model's module.
        stepper: takes the variant's steps.
        x, y: inputs and targets, samples in dimension 0.
        place: device of module and samples, and precision; default the processor and float32.
    """

    model: Model
    module: nn.Module
    stepper: Stepper
    x: Tensor
    y: Tensor
    place: Place = PROCESSOR

    def closure(self, x: Tensor, y: Tensor) -> Tensor:
        """Per-sample losses, with their graph."""
        return self.model.losses(self.place.outputs(self.module), x, y)

    def forward(self) -> None:
        """One forward pass without gradients."""
        with torch.no_grad():
            self.closure(self.x, self.y)

    def prepare(self, steps: int) -> None:
        """Take steps, then drop all gradients."""
        for _ in range(steps):
            self.step()
        for parameter in self.module.parameters():
            parameter.grad = None

    def step(self) -> Tensor:
        """Take one step; returns the mean loss."""
        return self.stepper.step(self.closure, self.x, self.y)


def start(model: Model, method: Variant, batch: int, place: Place = PROCESSOR) -> Work:
    """A new module, the variant on it, and a batch of this many samples, at a place."""
    module = model.build(SEED).to(place.device)
    x, y = (part.to(place.device) for part in model.data(batch, SEED))
    return Work(model, module, method.build(module), x, y, place)
