"""What the base optimizer is given, and what it is not: ∇L, h and a rule become tensors."""

from collections.abc import Sequence
from functools import cached_property

import torch

from f3eo.direction.rule import InnerProducts, Rule, multiplier
from f3eo.strength.strength import Strength
from f3eo.tensors import Vector, fetched, inners, multiplied, plus, scaled, squares


def products(
    gradient: Vector, structure: Vector | None, metric: Vector | None
) -> list[InnerProducts]:
    """⟨g, g⟩, ⟨g, h⟩, ⟨h, h⟩ of every tensor in a metric, in one synchronisation.

    Args:
        gradient: g.
        structure: h; None is zero.
        metric: the diagonal D; None is the identity.
    """
    if metric is None:
        gg = squares(gradient)
        rest = [] if structure is None else [*inners(structure, gradient), *squares(structure)]
    else:
        g = multiplied(gradient, metric)
        gg, rest = inners(gradient, g), []
        if structure is not None:
            h = multiplied(structure, metric)
            rest = [*inners(structure, g), *inners(structure, h)]
    values = fetched([*gg, *rest])
    if structure is None:
        return [InnerProducts(value, 0.0, 0.0) for value in values]
    count = len(gradient)
    columns = values[:count], values[count : 2 * count], values[2 * count :]
    return [InnerProducts(*row) for row in zip(*columns, strict=True)]


class Update:
    """The structure term λ d, d = h − c g, of one step.

    Args:
        gradient, structure: g and h on the structured parameters, both uphill.
        products: of every tensor, in the base's metric.
        rates: learning rates of the parameters in units of the largest; they belong to the metric,
            since a step is lr_p D g_p.
        rule: gives c.
        strength: gives λ.
        value: the strength's constant at this step.
    """

    def __init__(
        self,
        gradient: Vector,
        structure: Vector,
        products: Sequence[InnerProducts],
        rates: Sequence[float],
        rule: Rule,
        strength: Strength,
        value: float,
    ) -> None:
        self._gradient, self._structure = gradient, structure
        rated = [
            InnerProducts(r * p.gg, r * p.gh, r * p.hh)
            for p, r in zip(products, rates, strict=True)
        ]
        self._shares = rule.shares(rated)
        rounding = max((torch.finfo(g.dtype).eps for g in gradient), default=0.0)
        self._factor = multiplier(rated, self._shares, strength, value, rounding)

    @cached_property
    def direction(self) -> Vector:
        """d."""
        if not any(self._shares):
            return self._structure
        return plus(self._structure, scaled(self._gradient, self._shares), -1.0)

    def term(self) -> Vector:
        """λ d."""
        return scaled(self.direction, self._factor)

    def total(self) -> Vector:
        """g + λ d; where d is not there yet (1 − λ c) g + λ h, in two passes."""
        if "direction" in vars(self):
            return plus(self._gradient, self.direction, self._factor)
        rest = scaled(self._gradient, [1 - self._factor * c for c in self._shares])
        return plus(rest, self._structure, self._factor)
