"""Is a pass at other parameters the same function? Its losses against those predicted by ∇ℓ."""

import torch
from torch import Tensor

BENT = 0.05
"""Part of the predicted change by which a loss may deviate, whatever its curvature."""

BENDING = 64
"""Part of the mean predicted change, times x, the relative change of gradients
(`f3eo.fisher.accuracy`), by which curvature may change a loss, beside `BENT` of its own."""

ROUNDING = 64
"""Rounding of a loss between two passes, in units of u (1 + |ℓ|); docs/performance.md compares
this with losses in training."""

OTHER_LOSSES = (
    "the second pass gave other losses than the first predicts (random numbers or state outside of "
    "torch, or something that changes gradients)"
)


def scalar_mismatch(
    rise: float, slopes: tuple[float, float], epsilon: float, scale: float, unit: float
) -> float:
    """|f(θ + εv) − f(θ) − ε⟨∇f, v⟩| over what is allowed; above 1 the function is another.

    The slope ⟨∇f, v⟩ is the mean of those at both ends. Between them it may change by as much as
    itself at most: further apart, a difference of gradients approximates no derivative.

    Args:
        rise: f(θ + εv) − f(θ).
        slopes: ⟨∇f, v⟩ at θ and at θ + εv.
        epsilon: ε.
        scale: Σ |c_k f_k|, of which f is the sum.
        unit: u, the rounding unit.

    Returns:
        The ratio; 0 if a number is not finite.
    """
    first, second = (abs(epsilon) * slope for slope in slopes)
    bending = min(abs(second - first) / 2, abs(first))
    allowed = BENT * abs(first) + bending + ROUNDING * unit * (1 + scale)
    predicted = epsilon * (slopes[0] + slopes[1]) / 2
    ratio = abs(rise - predicted) / allowed
    return ratio if ratio == ratio and ratio != float("inf") else 0.0


def sample_mismatch(
    losses: Tensor, moved: Tensor, predicted: Tensor, bending: Tensor, unit: float
) -> Tensor:
    """max_i |ℓ_i(θ + s_i ∇ℓ_i) − ℓ_i(θ) − s_i ‖∇ℓ_i‖²| over what is allowed; above 1 one differs.

    The prediction fails if the closure draws other random numbers, reorders or mixes samples, or
    if a gradient is not that of its loss.

    Args:
        losses: ℓ_i of the first pass, (B,).
        moved: ℓ_i of the second pass, (B,).
        predicted: s_i ‖∇ℓ_i‖², (B,).
        bending: x, a scalar.
        unit: u, the rounding unit.

    Returns:
        The largest ratio over the samples with a finite first loss, a scalar; infinite if a second
        loss is not finite.
    """
    size = predicted.abs()
    allowed = BENT * size + BENDING * bending * size.mean() + ROUNDING * unit * (1 + losses.abs())
    ratio = (moved - losses - predicted).abs() / allowed
    ratio = torch.where(ratio.isfinite(), ratio, torch.inf)
    return torch.where(losses.isfinite(), ratio, 0).max()
