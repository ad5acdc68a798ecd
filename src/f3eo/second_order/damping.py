"""Acceptance of a step, and damping or trust radius of the next one.

    ρ = (L(θ) − L(θ + d) + δ) / (m(0) − m(d) + δ),    δ = 10 u |L|

is the ratio of actual to predicted reduction of the loss. u is the rounding unit of the loss;
without δ, ρ would be noise near a minimum (Conn, Gould & Toint 2000, section 17.4.2). A step is
accepted if it does not increase the loss and ρ ≥ 1e-4.
"""

from math import isfinite

LOW, HIGH = 0.25, 0.75  # ratios below and above which the trust radius changes
ACCEPT = 1e-4  # smallest ratio of an accepted step
FALL = 3.0  # largest divisor of the damping in a step
GROWTH = 2.0  # ν, factor on the damping at the first rejection
SMALLEST, LARGEST = 1e-10, 1e30
"""Bounds of the damping λ. Along directions on which the loss does not depend, a rounding error r
in ∇L moves the parameters by r/λ. An infinite λ could not fall again."""


def agreement(actual: float, predicted: float, loss: float, unit: float) -> float:
    """ρ, 1 for a perfect model; −inf if the new loss is not finite.

    Args:
        actual: L(θ) − L(θ + d).
        predicted: m(0) − m(d).
        loss: L(θ).
        unit: u.
    """
    slack = 10 * unit * abs(loss)
    if not isfinite(actual):
        return float("-inf")
    if predicted + slack <= 0:
        return 1.0 if actual == predicted else float("-inf")
    return (actual + slack) / (predicted + slack)


def accepts(ratio: float, actual: float) -> bool:
    """Whether the step is accepted: ρ = `ratio` is large enough and the loss does not increase."""
    return ratio >= ACCEPT and actual >= 0


def nielsen(damping: float, growth: float, ratio: float, accepted: bool) -> tuple[float, float]:
    """The next λ and ν, from the current ones.

        accepted:  λ ← λ · max(⅓, 1 − (2ρ − 1)³),   ν ← 2
        rejected:  λ ← λ · ν,                       ν ← 2ν

    The factor is ⅓ from ρ = 0.94 on, 1 at ρ = ½ and 2 at ρ = 0. As λ goes to 0, Gauss-Newton on a
    linear model becomes Newton's method.

    Source: Nielsen 1999 (IMM-REP-1999-05) with γ = 3, β = 2, p = 3; algorithm 3.16 of Madsen,
    Nielsen & Tingleff 2004. Deviations: ρ has δ in it and must be at least 1e-4, not 0; the
    first λ is given, not a fraction of the largest diagonal entry of G; λ is kept within
    [`SMALLEST`, `LARGEST`], and a first λ outside moves towards that interval only.
    """
    if accepted:  # ρ > 1 acts as 1: the cube of a very large ρ overflows
        factor, next_growth = max(1 / FALL, 1 - (2 * min(ratio, 1.0) - 1) ** 3), GROWTH
    else:
        factor, next_growth = growth, 2 * growth
    least, most = min(damping, SMALLEST), max(damping, LARGEST)
    return min(max(damping * factor, least), most), next_growth


def trust_radius(radius: float, ratio: float, accepted: bool, length: float, edge: bool) -> float:
    """The next Δ: ¼‖d‖ if the step is rejected or ρ < ¼; 2Δ if ρ > ¾ and d is on the boundary.

    Args:
        radius: Δ.
        ratio: ρ.
        accepted: whether the step is kept.
        length: ‖d‖.
        edge: whether d is on the boundary.

    Source: Nocedal & Wright 2006, algorithm 4.1. Deviation: the quarter is of the step, not of the
    radius, so that a rejected step is not repeated (Conn, Gould & Toint 2000, section 17.1).
    """
    if not accepted or ratio < LOW:
        return 0.25 * min(radius, length) if length > 0 else radius
    return 2 * radius if ratio > HIGH and edge else radius
