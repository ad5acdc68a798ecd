"""Is a pass at other weights the same function, and are its differences products with H?"""

BENT = 0.05
"""Part of the predicted change by which a change may differ beside what curvature makes of it."""

ROUNDING = 64
"""Rounding of a loss between two passes, in units of 1 + |ℓ| (docs/performance.md has how often
what was seen in training came near it)."""

OTHER_LOSSES = (
    "the second pass gave other losses than the first predicts (random numbers or state outside of "
    "torch, or something that changes gradients)"
)


class NotRepeatable(Exception):
    """Why a pass has no second one at other weights."""


class Differs(Exception):
    """Why differences of these passes are no products with a Hessian."""


def mismatch(
    rise: float, slopes: tuple[float, float], size: float, scale: float, unit: float
) -> float:
    """By how much s(θ + εv) − s(θ) is not ε⟨∇s, v⟩, in units of what is allowed; above 1 it is not.

    The slope is the mean of those at both ends; it may bend between them, but not by more than
    itself: differences then were none of a derivative.

    Args:
        rise: s(θ + εv) − s(θ).
        slopes: ⟨∇s, v⟩ at θ and at θ + εv.
        size: ε.
        scale: Σ |w_k f_k|, of which s is the sum.
        unit: u.

    Returns:
        0 where something is not finite.
    """
    first, second = (abs(size) * slope for slope in slopes)
    bending = min(abs(second - first) / 2, abs(first))
    allowed = BENT * abs(first) + bending + ROUNDING * unit * (1 + scale)
    predicted = size * (slopes[0] + slopes[1]) / 2
    found = abs(rise - predicted) / allowed
    return found if found == found and found != float("inf") else 0.0


def no_second_derivative(error: Exception) -> bool:
    """Whether torch says that an operation has none."""
    return "is not implemented" in str(error) or "once_differentiable" in str(error)


def failed_again(error: Exception) -> Differs:
    """A second pass that ended in an error, which the first had not."""
    line = (str(error).strip().splitlines() or [""])[0]
    return Differs(f"the closure failed when run again, {type(error).__name__}: {line}")


def custom(names: list[str]) -> NotRepeatable:
    """Custom functions stand in the graph.

    Args:
        names: their names.
    """
    return NotRepeatable(
        f"a custom autograd.Function ({', '.join(names)}) is in the graph, whose backward need not "
        f"be the derivative of its forward"
    )
