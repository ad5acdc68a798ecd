"""A structure term in proportion to the gradient."""

from f3eo.strength.strength import Strength


class Ratio(Strength):
    """λ = κ‖g‖/‖d‖: the structure term is κ times as long as the gradient, whatever their scales.

    Args:
        value: κ; 0.1 to 0.5 is a good range.
        schedule: see `Strength`.
    """

    def factor(self, value: float, gradient: float, direction: float) -> float:
        """κ‖g‖/‖d‖."""
        return value * gradient / direction if direction > 0 else 0.0
