"""A direction less its part in the span of some gradients; pure functions of lists of tensors."""

from collections.abc import Sequence

import torch
from torch import Tensor

from f3eo.direction.update import ROUNDING
from f3eo.tensors import Vector, add_to, inners, multiplied, stacked


def apart(
    structure: Vector, along: Sequence[Vector], metric: Vector | None, rates: Sequence[float]
) -> list[Tensor]:
    """d = h − Σ_j c_j v_j, G c = b with G_ij = ⟨v_i, v_j⟩, b_i = ⟨v_i, h⟩, so that ⟨v_i, d⟩ = 0.

    Inner products are ⟨a, b⟩ = Σ_p r_p a_pᵀ D_p b_p, the metric in which a step moves. Vectors that
    are 0, or in the span of the others to rounding, do not count. The projection runs twice, since
    the first leaves a rest of the size of the rounding times ‖h‖. A d that is rounding noise is 0.

    Args:
        structure: h, a tensor per parameter.
        along: v_j, in the same form.
        metric: D, a diagonal; None is the identity.
        rates: r_p, the learning rate of every tensor, in units of the largest.
    """
    weighted = [v if metric is None else multiplied(v, metric) for v in along]
    gram = torch.stack([torch.stack([_inner(a, v, rates) for v in along]) for a in weighted])
    roots = gram.diagonal().sqrt()
    units = torch.where(roots > 0, 1 / roots, 0)
    tolerance = ROUNDING * max(torch.finfo(h.dtype).eps for h in structure)
    inverse = torch.linalg.pinv(units.outer(units) * gram, rtol=tolerance, hermitian=True)
    direction = [h.clone() for h in structure]
    for _ in range(2):
        right = torch.stack([_inner(v, direction, rates) for v in weighted])
        shares = units * (inverse @ (units * right))
        for share, v in zip(shares.tolist(), along, strict=True):
            add_to(direction, v, -share)
    before, after = (_length(v, metric, rates) for v in (structure, direction))
    return (
        direction if after > tolerance**0.5 * before else [torch.zeros_like(h) for h in structure]
    )


def _inner(a: Vector, b: Vector, rates: Sequence[float]) -> Tensor:
    """Σ_p r_p ⟨a_p, b_p⟩, a scalar in float64 on the CPU."""
    each = stacked(inners(a, b)).cpu().double()
    return torch.dot(each, torch.tensor(rates, dtype=torch.float64))


def _length(v: Vector, metric: Vector | None, rates: Sequence[float]) -> float:
    return float(_inner(v if metric is None else multiplied(v, metric), v, rates)) ** 0.5
