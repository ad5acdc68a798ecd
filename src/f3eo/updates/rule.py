"""The interface of every update rule."""

from abc import ABC, abstractmethod

from torch import Tensor

from f3eo.tensors import Vector, inner, scaled
from f3eo.updates.weight import Weight


class Rule(ABC):
    """What an update takes from the structure gradient h beside the loss gradient g.

    Vectors hold the structured parameters only. Both g and h point uphill: the base optimizer moves
    against them. `metric` is the diagonal of the base optimizer's preconditioner D, None for the
    identity: the base moves by −D g, so what leaves the loss alone is orthogonal to g in D.
    """

    replaces_gradient: bool = False
    """Whether the structure term stands in place of the loss gradient."""

    @abstractmethod
    def direction(self, gradient: Vector, structure: Vector, metric: Vector | None) -> list[Tensor]:
        """The structure direction, before it is scaled."""


def weighted(
    direction: Vector, gradient: Vector, metric: Vector | None, weight: Weight, value: float
) -> list[Tensor]:
    """λ times a structure direction; lengths are taken in the base's metric, ‖x‖² = ⟨x, D x⟩.

    Args:
        direction, gradient, metric: the rule's direction, g, D.
        weight: how λ follows from the lengths.
        value: the weight's constant at this step.
    """
    lengths = (inner(v, v, metric).clamp(min=0).sqrt() for v in (gradient, direction))
    return scaled(direction, weight.factor(value, *lengths))
