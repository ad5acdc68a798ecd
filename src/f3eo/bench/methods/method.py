"""A method: an optimizer behind one way to take a step, with its price in plain gradients."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

Closure = Callable[[Tensor, Tensor], Tensor]
"""(x, y) -> per-sample losses (B,), with their graph."""


class Stepper(ABC):
    """An optimizer at work on one model.

    Attributes:
        optimizers: the torch optimizers whose learning rate is scheduled.
        gradient_equivalents: cost of one step, in plain gradients of one batch.
    """

    optimizers: tuple[Optimizer, ...]
    gradient_equivalents: float

    @abstractmethod
    def step(self, closure: Closure, x: Tensor, y: Tensor) -> Tensor:
        """Take one step on the batch and return its mean loss, detached."""


class GradientStepper(Stepper):
    """One gradient, then one step of each optimizer (each owns its part of the parameters)."""

    gradient_equivalents = 1.0

    def __init__(self, *optimizers: Optimizer) -> None:
        self.optimizers = optimizers

    def step(self, closure: Closure, x: Tensor, y: Tensor) -> Tensor:
        """One forward, one backward, one update."""
        for optimizer in self.optimizers:
            optimizer.zero_grad()
        loss = closure(x, y).mean()
        loss.backward()
        for optimizer in self.optimizers:
            optimizer.step()
        return loss.detach()


@dataclass(frozen=True)
class Method:
    """A named way to train, with the hyper-parameters it understands.

    Args:
        name: short name, as typed on the command line.
        label: name in tables and figures.
        colour: its colour in every figure, as #rrggbb.
        defaults: every hyper-parameter and its value; tasks and users override by name.
        build: (model, options, seed) -> the stepper; `options` holds every name of `defaults`.
    """

    name: str
    label: str
    colour: str
    defaults: Mapping[str, Any]
    build: Callable[[nn.Module, Mapping[str, Any], int], Stepper]

    def options(self, *overrides: Mapping[str, Any]) -> dict[str, Any]:
        """The full hyper-parameters: the defaults, overridden from left to right.

        Raises:
            ValueError: an override this method does not have.
        """
        merged = dict(self.defaults)
        for override in overrides:
            for name, value in override.items():
                if name not in merged:
                    raise ValueError(
                        f"{self.name} has no option {name!r}; it has {', '.join(self.defaults)}"
                    )
                merged[name] = value
        return merged
