"""How far the quadratic model is trusted: from the reduction of the loss that it promised.

    ratio ρ = (L(θ) − L(θ + d) + δ) / (m(0) − m(d) + δ),    δ = 10 u |L|

u is the rounding unit of the loss: without δ, ρ would be noise near a minimum (Conn, Gould & Toint
2000, section 17.4.2). A step is accepted if it does not increase the loss and ρ ≥ 1e-4.
"""

from math import isfinite

LOW, HIGH = 0.25, 0.75  # of a trust region
ACCEPT = 1e-4
FALL = 3.0  # most that the damping falls by in a step
GROWTH = 2.0  # ν: what it rises by at the first rejection
SMALLEST, LARGEST = 1e-10, 1e30
"""Bounds of the damping. Along directions that the loss is blind to, rounding r in ∇L moves the
parameters by r/λ; an infinite λ could not fall again."""


def agreement(actual: float, predicted: float, loss: float, unit: float) -> float:
    """ρ: 1 for a perfect model; −inf if the new loss is not finite."""
    slack = 10 * unit * abs(loss)
    if not isfinite(actual):
        return float("-inf")
    if predicted + slack <= 0:
        return 1.0 if actual == predicted else float("-inf")
    return (actual + slack) / (predicted + slack)


def accepts(ratio: float, actual: float) -> bool:
    """Whether the step is kept."""
    return ratio >= ACCEPT and actual >= 0


def nielsen(damping: float, growth: float, ratio: float, accepted: bool) -> tuple[float, float]:
    """The next λ and ν: λ falls fast where the model is right, and rises faster with every failure.

        accepted:  λ ← λ · max(⅓, 1 − (2ρ − 1)³),   ν ← 2
        rejected:  λ ← λ · ν,                       ν ← 2ν

    The factor is ⅓ from ρ = 0.94 on, 1 at ρ = ½ and 2 at ρ = 0. As λ goes to 0, Gauss-Newton on a
    linear model becomes Newton's method.

    Source: Nielsen 1999 (IMM-REP-1999-05) with γ = 3, β = 2, p = 3; algorithm 3.16 of Madsen,
    Nielsen & Tingleff 2004. Deviations: ρ has δ in it, and at least 1e-4 is asked of it, not 0; the
    first λ is given, not a share of the largest entry on the diagonal of G; λ is kept within
    `SMALLEST` and `LARGEST`, and one that starts outside moves inwards only.
    """
    if accepted:  # from ρ = 1 on nothing changes; the cube of a very large one overflows
        factor, following = max(1 / FALL, 1 - (2 * min(ratio, 1.0) - 1) ** 3), GROWTH
    else:
        factor, following = growth, 2 * growth
    least, most = min(damping, SMALLEST), max(damping, LARGEST)
    return min(max(damping * factor, least), most), following


def trust_radius(radius: float, ratio: float, accepted: bool, length: float, edge: bool) -> float:
    """Δ: a quarter of the step if ρ < ¼ or rejected, doubled if ρ > ¾ at the edge.

    Source: Nocedal & Wright 2006, algorithm 4.1; the quarter is of the step, not of the radius,
    so that a rejected step is never tried again (Conn, Gould & Toint 2000, section 17.1).
    """
    if not accepted or ratio < LOW:
        return 0.25 * min(radius, length) if length > 0 else radius
    return 2 * radius if ratio > HIGH and edge else radius
