"""λ in proportion to the length of the loss gradient."""

from f3eo.strength.strength import Strength


class Ratio(Strength):
    """λ = κ‖g‖/‖d‖: the structure term is κ times as long as the loss gradient.

    Args:
        value: κ; 0.1 to 0.5 is a good range.
        schedule: see `Strength`.
    """

    def multiplier(self, constant: float, gradient: float, direction: float) -> float:
        """κ‖g‖/‖d‖."""
        return constant * gradient / direction if direction > 0 else 0.0
