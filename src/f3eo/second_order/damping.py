"""How far the quadratic model is trusted: from the reduction of the loss that it promised.

    ratio ρ = (L(θ) − L(θ + d) + δ) / (m(0) − m(d) + δ),    δ = 10 u |L|

u is the rounding unit of the loss: without δ, ρ would be noise near a minimum (Conn, Gould & Toint
2000, section 17.4.2). A step is accepted if it does not increase the loss and ρ ≥ 1e-4.
"""

from math import isfinite

LOW, HIGH = 0.25, 0.75
ACCEPT = 1e-4
SMALLEST = 1e-10  # a damping that has fallen to nothing could not be raised by factors


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


def levenberg_marquardt(damping: float, ratio: float, accepted: bool) -> float:
    """λ: ×4 after a rejected step, ×3/2 if ρ < ¼, ×2/3 if ρ > ¾.

    Source: Levenberg 1944, Marquardt 1963; factors 3/2 and 2/3 of Martens 2010, section 4.1, which
    has no rejection.
    """
    if not accepted:
        return 4 * damping
    if ratio < LOW:
        return 1.5 * damping
    return max(damping / 1.5, min(damping, SMALLEST)) if ratio > HIGH else damping


def trust_radius(radius: float, ratio: float, accepted: bool, length: float, edge: bool) -> float:
    """Δ: a quarter of the step if ρ < ¼ or rejected, doubled if ρ > ¾ at the edge.

    Source: Nocedal & Wright 2006, algorithm 4.1; the quarter is of the step, not of the radius,
    so that a rejected step is never tried again (Conn, Gould & Toint 2000, section 17.1).
    """
    if not accepted or ratio < LOW:
        return 0.25 * min(radius, length) if length > 0 else radius
    return 2 * radius if ratio > HIGH and edge else radius
