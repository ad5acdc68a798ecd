"""Conjugate gradients, stopped at the boundary of a trust region or at negative curvature."""

from collections.abc import Callable
from dataclasses import dataclass
from math import inf, isfinite

import torch
from torch import Tensor

from f3eo.tensors import fetched


@dataclass(frozen=True)
class Solution:
    """Result of conjugate gradients.

    Args:
        step: d, shape (P,).
        iterations: number of products B p.
        curvature: ⟨p, B p⟩/⟨p, p⟩ ≤ 0 of the direction p at which the iteration stopped; 0.0 if
            there was none.
        direction: p, shape (P,); None if there was none.
        at_edge: whether ‖d‖ is the radius.
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
    """Minimise ⟨g, d⟩ + ½ ⟨d, B d⟩ over ‖d‖ ≤ Δ by conjugate gradients from d = 0.

    Within the region and without negative curvature the solution of B d = −g is approximated. The
    iteration ends on the boundary ‖d‖ = Δ if an iterate leaves the region, or, along p, at a
    direction p with ⟨p, B p⟩ ≤ 0. With Δ = ∞ it ends at the iterate before such a direction.

    Args:
        product: v ↦ B v, B symmetric.
        gradient: g, shape (P,).
        radius: Δ > 0, in units of the parameters; default ∞.
        tolerance: the iteration stops at ‖B d + g‖ ≤ tolerance · ‖g‖.
        max_iterations: largest number of products.

    Returns:
        The step, and why the iteration ended. A g or B p that is not finite ends it, too.

    Source: Steihaug 1983; Nocedal & Wright 2006, algorithm 7.2.

    >>> g = torch.tensor([6.0, 8.0])
    >>> truncated_cg(lambda v: 2 * v, g, tolerance=1e-4, max_iterations=10).step
    tensor([-3., -4.])
    >>> truncated_cg(lambda v: 2 * v, g, radius=2.5, tolerance=1e-4, max_iterations=10).step
    tensor([-1.5000, -2.0000])
    """
    step, residual, direction = torch.zeros_like(gradient), gradient, -gradient
    square = residual @ residual
    (initial,) = fetched([square])
    iterations = 0
    while 0 < initial < inf and iterations < max_iterations:
        image = product(direction)
        iterations += 1
        bend = direction @ image
        alpha = square / bend
        next_step, residual = step + alpha * direction, residual + alpha * image
        next_square = residual @ residual
        # All values that decide how to go on, in one synchronisation.
        scalars = [bend, direction @ direction, next_step.norm(), next_square]
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
        step = next_step
        if remaining <= tolerance**2 * initial:
            break
        direction = -residual + (next_square / square) * direction
        square = next_square
    return Solution(step, iterations)


def _to_edge(step: Tensor, direction: Tensor, radius: float) -> Tensor:
    """τ ≥ 0 with ‖d + τ p‖ = Δ, in the form without cancellation for ⟨d, p⟩ ≥ 0."""
    a, b, c = direction @ direction, step @ direction, radius**2 - step @ step
    return c / (b + (b.square() + a * c).sqrt())
