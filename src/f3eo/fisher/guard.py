"""Guards of the second pass: is it the same function, and are its differences products with H?"""

from collections.abc import Sequence

import torch
from torch import Tensor

from f3eo.closure.evaluate import evaluate
from f3eo.closure.problem import Problem
from f3eo.curvature.guard import BENT, ROUNDING
from f3eo.fisher.estimator import chosen
from f3eo.tensors import filled, plus, scaled, squared_norm

BENDING = 64
"""Part of the mean predicted change, times x, the relative change of gradients (`accuracy.py`), by
which curvature may change a loss, beside `BENT` of its own."""

TOLERANCE = 0.05
"""Relative error of one sample's h that no rounding explains, where 20 times the expected one is
less."""


def mismatch(
    losses: Tensor, moved: Tensor, predicted: Tensor, bending: Tensor, unit: float
) -> Tensor:
    """By how much the second pass is not the first, in units of what is allowed; above 1 it is not.

    Along its own gradient, by a distance s, a loss grows by s‖∇ℓ_i‖. If closures draw other
    numbers, samples stand elsewhere, mix, or a gradient is not that of the loss, it does not.

    Args:
        losses: ℓ_i of the first pass, (B,).
        moved: ℓ_i of the second.
        predicted: s_i ‖∇ℓ_i‖.
        bending: x, a scalar.
        unit: u.

    Returns:
        the largest over the samples; a scalar, infinite where a second loss is not finite. Losses
        that are not so at first do not count.
    """
    size = predicted.abs()
    allowed = BENT * size + BENDING * bending * size.mean() + ROUNDING * unit * (1 + losses.abs())
    found = (moved - losses - predicted).abs() / allowed
    found = torch.where(found.isfinite(), found, torch.inf)
    return torch.where(losses.isfinite(), found, 0).max()


def exact_products(problem: Problem, samples: Sequence[int], power: float) -> list[list[Tensor]]:
    """‖∇ℓ_i‖^(p−2) H_i ∇ℓ_i of single samples by double backward, without anything of this package.

    Args:
        problem: closure, batch and parameters.
        samples: i.
        power: p.
    """
    losses, parameters = (
        evaluate(problem, per_sample=True, differentiable=True).losses,
        chosen(problem),
    )
    found = []
    for i in samples:
        gradient = torch.autograd.grad(losses[i], parameters, create_graph=True, allow_unused=True)
        gradient = [g for g in gradient if g is not None and g.requires_grad]
        factor = squared_norm([g.detach() for g in gradient]).sqrt() ** (power - 2)
        product = (
            torch.autograd.grad(
                gradient,
                parameters,
                scaled([g.detach() for g in gradient], float(factor)),
                allow_unused=True,
                retain_graph=True,
            )
            if gradient
            else [None] * len(parameters)
        )
        found.append(filled(product, parameters))
    return found


def apart(found: Sequence[Tensor], exact: Sequence[Tensor], expected: float) -> bool:
    """Whether h of one sample by differences is none of its Hessian's.

    Args:
        found: by differences.
        exact: by double backward.
        expected: relative error.
    """
    length = float(squared_norm(list(exact)).sqrt())
    error = float(squared_norm(plus(list(found), list(exact), -1.0)).sqrt())
    return error > max(TOLERANCE, 20 * expected) * length
