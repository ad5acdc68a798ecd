"""The structure term λ d from g, h, a rule and a strength; pure functions of lists of tensors."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from f3eo.direction.rule import InnerProducts, Rule
from f3eo.strength import Strength
from f3eo.tensors import Vector, add_to, inners, multiplied, norms, scaled, stacked

ROUNDING = 16
"""A squared d below this many rounding units of ⟨h, h⟩ is rounding noise."""


def inner_products(
    gradient: Vector, structure: Vector | None, metric: Vector | None
) -> list[InnerProducts]:
    """⟨g, g⟩, ⟨g, h⟩, ⟨h, h⟩ of every tensor, with one synchronisation of the device.

    Args:
        gradient: g.
        structure: h; None is zero.
        metric: D, a diagonal; None is the identity.
    """
    if metric is None:
        parts = [stacked(norms(gradient)).square()]
        if structure is not None:
            parts.append(stacked(inners(structure, gradient)))
            parts.append(stacked(norms(structure)).square())
    else:
        g = multiplied(gradient, metric)
        parts = [stacked(inners(gradient, g))]
        if structure is not None:
            parts.append(stacked(inners(structure, g)))
            parts.append(stacked(inners(structure, multiplied(structure, metric))))
    count = len(gradient)
    values = torch.cat(parts).tolist() if len(parts) > 1 else parts[0].tolist()
    if structure is None:
        return [InnerProducts(value, 0.0, 0.0) for value in values]
    columns = values[:count], values[count : 2 * count], values[2 * count :]
    return list(map(InnerProducts, *columns))


def together(products: Sequence[InnerProducts]) -> InnerProducts:
    """The inner products of all tensors as one vector."""
    return InnerProducts(
        sum([p.gg for p in products]), sum([p.gh for p in products]), sum([p.hh for p in products])
    )


@dataclass(frozen=True)
class Update:
    """The structure term λ d, d = h − c g, by its numbers.

    Args:
        shares: c of every tensor.
        strength: λ.
    """

    shares: list[float]
    strength: float

    def distance(self, products: Sequence[InnerProducts]) -> float:
        """‖d‖ from the inner products of every tensor, in their metric."""
        pairs = zip(products, self.shares, strict=True)
        squared = sum([p.hh - 2 * c * p.gh + c * c * p.gg for p, c in pairs])
        return max(squared, 0.0) ** 0.5

    def direction(self, gradient: Vector, structure: Vector) -> Vector:
        """d = h − c g; h itself where c is 0."""
        if not any(self.shares):
            return structure
        direction = scaled(gradient, [-c for c in self.shares])
        add_to(direction, structure)
        return direction

    def joined(self, gradient: Vector, structure: Vector) -> Vector:
        """g + λ d as (1 − λ c) g + λ h, in two passes over the tensors."""
        total = scaled(gradient, [1 - self.strength * c for c in self.shares])
        add_to(total, structure, self.strength)
        return total


def combine(
    products: Sequence[InnerProducts],
    rates: Sequence[float],
    rule: Rule,
    strength: Strength,
    constant: float,
    tensors: Vector,
) -> Update:
    """c by the rule and λ by the strength. λ is 0 where d is rounding noise.

    Args:
        products: of g and h for every tensor, in the metric of the base.
        rates: learning rate of every tensor, in units of the largest. They belong to the metric,
            since a step moves by lr_p D g_p.
        rule: gives c.
        strength: gives λ from ‖g‖ and ‖d‖.
        constant: of the strength at this step.
        tensors: g; the coarsest of their types gives the rounding unit.
    """
    unit = max([torch.finfo(t.dtype).eps for t in tensors], default=0.0)
    rated = [
        InnerProducts(rate * p.gg, rate * p.gh, rate * p.hh)
        for p, rate in zip(products, rates, strict=True)
    ]
    shares, whole = rule.shares(rated), together(rated)
    squared = sum([p.hh - 2 * c * p.gh + c * c * p.gg for p, c in zip(rated, shares, strict=True)])
    if not squared > ROUNDING * unit * whole.hh:
        return Update(shares, 0.0)
    return Update(shares, strength.multiplier(constant, whole.gg**0.5, squared**0.5))
