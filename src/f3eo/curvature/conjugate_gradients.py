"""Conjugate gradients that stop at the edge of a trust region and at negative curvature."""

from collections.abc import Callable
from dataclasses import dataclass
from math import inf, isfinite

import torch
from torch import Tensor

from f3eo.tensors import fetched


@dataclass(frozen=True)
class Solution:
    """What conjugate gradients found.

    Args:
        step: d, shape (P,).
        iterations: products B p made.
        curvature: ⟨p, B p⟩/⟨p, p⟩ of a direction p of negative curvature, 0.0 if none was met.
        direction: that p.
        at_edge: ‖d‖ is the radius.
    """

    step: Tensor
    iterations: int
    curvature: float = 0.0
    direction: Tensor | None = None
    at_edge: bool = False


def truncated_cg(
    product: Callable[[Tensor], Tensor],
    gradient: Tensor,
    *,
    radius: float = inf,
    tolerance: float,
    max_iterations: int,
) -> Solution:
    """Minimise ⟨g, d⟩ + ½ ⟨d, B d⟩ over ‖d‖ ≤ Δ from d = 0, as far as conjugate gradients go.

    Inside the region and without negative curvature this is B d = −g. The path leaves the region
    at its edge; where ⟨p, B p⟩ ≤ 0 it is followed along p to the edge. Without an edge (Δ = ∞) it
    stops there.

    Args:
        product: v ↦ B v, B symmetric.
        gradient: g, shape (P,).
        radius: Δ > 0, in units of the parameters.
        tolerance: stop when ‖B d + g‖ ≤ tolerance · ‖g‖.
        max_iterations: largest number of products.

    Returns:
        The step, and how the search ended.

    Source: Steihaug 1983; Nocedal & Wright 2006, algorithm 7.2.
    """
    step, residual, direction = torch.zeros_like(gradient), gradient, -gradient
    square = residual @ residual
    (initial,) = fetched([square])
    iterations = 0
    while 0 < initial < inf and iterations < max_iterations:
        bent = product(direction)
        iterations += 1
        bend = direction @ bent
        alpha = square / bend
        following, residual = step + alpha * direction, residual + alpha * bent
        left = residual @ residual
        # Everything that decides, in one synchronisation.
        scalars = [bend, direction @ direction, following.norm(), left]
        curvature, length, distance, remaining = fetched(scalars)
        if curvature <= 0:
            edge = step if radius == inf else step + _to_edge(step, direction, radius) * direction
            curvature /= length
            return Solution(edge, iterations, curvature, direction, radius < inf)
        if distance >= radius:
            edge = step + _to_edge(step, direction, radius) * direction
            return Solution(edge, iterations, at_edge=True)
        if not isfinite(curvature + remaining):
            break
        step = following
        if remaining <= tolerance**2 * initial:
            break
        direction = -residual + (left / square) * direction
        square = left
    return Solution(step, iterations)


def _to_edge(step: Tensor, direction: Tensor, radius: float) -> Tensor:
    """τ ≥ 0 with ‖d + τ p‖ = Δ; the form without cancellation, since ⟨d, p⟩ ≥ 0."""
    a, b, c = direction @ direction, step @ direction, radius**2 - step @ step
    return c / (b + (b.square() + a * c).sqrt())
