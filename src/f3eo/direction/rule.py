"""The interface of every update rule, and what all of them share.

Rules work in the plane of the loss gradient g and the structure gradient h: the structure
direction is d = h − c g, and a rule is the choice of c. So all it takes is three inner products
per tensor. Both g
and h point uphill: the base optimizer moves against them.

Inner products are taken in the base optimizer's metric, ⟨a, b⟩ = aᵀ D b with D its preconditioner
(identity for SGD): the base moves by −D g, so what leaves the loss alone is orthogonal to g in D.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from f3eo.shown import Shown
from f3eo.strength.strength import Strength


@dataclass(frozen=True)
class InnerProducts:
    """Inner products in the base's metric of one tensor's gradients, or of all tensors together."""

    gg: float
    gh: float
    hh: float


class Rule(Shown, ABC):
    """What an update takes from the structure gradient h beside the loss gradient g."""

    replaces_gradient: bool = False
    """Whether the structure term stands in place of the loss gradient instead of beside it."""

    @abstractmethod
    def shares(self, products: Sequence[InnerProducts]) -> list[float]:
        """c for every tensor from the products of every tensor; d = h − c g."""


def together(products: Sequence[InnerProducts]) -> InnerProducts:
    """The products of all tensors as one vector."""
    return InnerProducts(
        sum(p.gg for p in products), sum(p.gh for p in products), sum(p.hh for p in products)
    )


def multiplier(
    products: Sequence[InnerProducts],
    shares: Sequence[float],
    strength: Strength,
    value: float,
    rounding: float,
) -> float:
    """λ, such that the structure term is λ d.

    Args:
        products, shares: of every tensor.
        strength: how λ follows from ‖g‖ and ‖d‖.
        value: the strength's constant at this step.
        rounding: relative rounding unit of the products. A d that is smaller than h by as much is
            noise: λ is 0 then.
    """
    whole = together(products)
    squared = sum(p.hh - 2 * c * p.gh + c * c * p.gg for p, c in zip(products, shares, strict=True))
    if not squared > 16 * rounding * whole.hh:
        return 0.0
    return strength.factor(value, whole.gg**0.5, squared**0.5)
