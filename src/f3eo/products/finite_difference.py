"""Hessian-vector products from gradients at perturbed weights: no graph of the gradient is kept."""

from collections.abc import Sequence
from math import isfinite

import torch
from torch import Tensor

from f3eo.evaluation import check_reached
from f3eo.graph import rounding_unit
from f3eo.products.double_backward import weighted_sum
from f3eo.products.engine import Engine, Objective, Product
from f3eo.tensors import Vector, filled, plus, scaled, squared_norm

ROUNDING = 8
"""A bound on the rounding of a sum over samples, in rounding units of its terms (4 was seen)."""


class FiniteDifference(Engine):
    """H v ≈ (∇s(θ + εv) − ∇s(θ))/ε, or (∇s(θ + εv) − ∇s(θ − εv))/2ε (central).

    ε = step · ‖θ‖/‖v‖ over the structured parameters, so the weights move by the same relative
    amount whatever the scale of the loss. Relative error on small smooth networks below 5e-3
    forward and 1e-3 central in float32, 1e-6 and 1e-8 in float64 (asserted in tests/products);
    kinks (ReLU) between θ and θ + εv add to it.

    Args:
        central: two perturbed gradients, error O(ε²), instead of one, error O(ε).
        step: relative size of the perturbation; default √u forward and ∛u central, u the
            coarsest rounding unit in the graph of the loss (bfloat16's under its autocast).

    Raises:
        ValueError: a step that is not positive.
    """

    twice = False

    def __init__(self, *, central: bool = False, step: float | None = None) -> None:
        if step is not None and not step > 0:
            raise ValueError(f"FiniteDifference needs step > 0, received {step}")
        self.central = central
        self.step = step
        self.forwards = 6.0 if central else 3.0

    def product(
        self,
        objectives: Sequence[Objective],
        weights: Sequence[float],
        parameters: Sequence[Tensor],
        structured: Sequence[bool],
        whole: Objective | None = None,
    ) -> Product:
        """See `Engine.product`."""
        values, gradients, unit = _gradients(objectives, parameters)
        check_reached([g for gs in gradients for g in gs], parameters)
        chosen = [p for p, s in zip(parameters, structured, strict=True) if s]
        vector = weighted_sum(gradients, weights, structured, chosen)
        epsilon = self._epsilon(chosen, vector, unit)

        def perturbed(size: float) -> list[Tensor]:
            saved = [p.detach().clone() for p in chosen]
            try:
                with torch.no_grad():
                    torch._foreach_add_(chosen, vector, alpha=size)  # pyright: ignore
                if whole is not None and (sums := whole()):
                    gradient = torch.autograd.grad(sums[0], chosen, allow_unused=True)
                    return filled(gradient, chosen)
                return weighted_sum(
                    _gradients(objectives, parameters)[1], weights, structured, chosen
                )
            finally:
                _put_back(chosen, saved)

        if epsilon == 0.0:
            product = filled([None] * len(chosen), chosen)
        else:
            low = perturbed(-epsilon) if self.central else vector
            width = 2 * epsilon if self.central else epsilon
            high = perturbed(epsilon)
            product = scaled(plus(high, low, -1.0), 1 / width)
            terms = sum(squared_norm([g for g in gs if g is not None]).sqrt() for gs in gradients)
            product = above_rounding(product, unit * terms / width)
        return Product([v.detach() for v in values], gradients, vector, product)

    @torch.no_grad()
    def size(self, chosen: Vector, length: Tensor, default: float) -> Tensor:
        """ε = step · ‖θ‖/length, a scalar tensor; step/length for ‖θ‖ = 0, step ‖θ‖ for length 0.

        Args:
            chosen: θ.
            length: ‖v‖, or what stands for it.
            default: the step, where none was given.
        """
        step = self.step or default
        norm = squared_norm(list(chosen)).sqrt().to(length)
        one = torch.ones_like(length)
        return step * torch.where(norm == 0, one, norm) / torch.where(length == 0, one, length)

    def _epsilon(self, chosen: list[Tensor], vector: list[Tensor], unit: float) -> float:
        length = squared_norm(vector).sqrt()
        default = unit ** (1 / 3 if self.central else 1 / 2)
        size = float(self.size(chosen, length, default))
        return size if float(length) > 0 and isfinite(size) else 0.0


@torch.no_grad()
def _put_back(parameters: list[Tensor], values: list[Tensor]) -> None:
    """The parameters' values again, one by one where they cannot be written all at once."""
    try:
        torch._foreach_copy_(parameters, values)  # pyright: ignore
    except Exception:  # tensors of several kinds, such as DTensors beside others
        for p, value in zip(parameters, values, strict=True):
            p.copy_(value)


def above_rounding(product: list[Tensor], rounding: Tensor | float) -> list[Tensor]:
    """The product, or zeros where its norm is within what sums in other orders differ by.

    Args:
        product: a difference of gradients over its width.
        rounding: a rounding unit of the terms of these sums, over the same width.
    """
    noise = squared_norm(product).sqrt() <= ROUNDING * rounding
    return [torch.where(noise, 0, p) for p in product]


def _gradients(
    objectives: Sequence[Objective], parameters: Sequence[Tensor]
) -> tuple[list[Tensor], list[list[Tensor | None]], float]:
    """Values and gradients of all scalars, and the coarsest rounding unit on the way."""
    unit = 0.0
    values: list[Tensor] = []
    gradients: list[list[Tensor | None]] = []
    for objective in objectives:
        scalars = objective()
        unit = max(unit, *map(rounding_unit, scalars))
        for i, scalar in enumerate(scalars):
            last = i == len(scalars) - 1
            grads = torch.autograd.grad(
                scalar, parameters, allow_unused=True, retain_graph=not last
            )
            gradients.append(list(grads))
            values.append(scalar.detach())
    return values, gradients, unit
