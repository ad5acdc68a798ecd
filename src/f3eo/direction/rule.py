"""The interface of every update rule.

A rule works in the plane of the loss gradient g and the structure gradient h. The structure
direction is d = h − c g, and a rule is the choice of c, one for every tensor. It needs three inner
products per tensor for that. Both g and h point uphill: the base optimizer moves against them.

Inner products are taken in the metric of the base optimizer, ⟨a, b⟩ = aᵀ D b with D its
preconditioner (the identity for SGD). The base moves by −D g, so a direction that leaves the loss
alone is orthogonal to g in D.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from f3eo.shown import Shown


@dataclass(frozen=True)
class InnerProducts:
    """⟨g, g⟩, ⟨g, h⟩ and ⟨h, h⟩ of one tensor, or of all tensors together."""

    gg: float
    gh: float
    hh: float


class Rule(Shown, ABC):
    """What an update takes from the structure gradient h beside the loss gradient g."""

    replaces_gradient: bool = False
    """Whether the structure term replaces the loss gradient instead of joining it."""

    @abstractmethod
    def shares(self, products: Sequence[InnerProducts]) -> list[float]:
        """c of d = h − c g, for every tensor.

        Args:
            products: of every tensor, in the metric of the base.
        """
