"""λ as a plain number."""

from f3eo.strength.strength import Strength


class Fixed(Strength):
    """λ = value. With `Coupled()` the update descends L + (λ/p) E‖∇ℓ_i‖^p, p the power.

    A good value depends on model, loss and data.

    Args:
        value: λ.
        schedule: see `Strength`.
    """

    def multiplier(self, constant: float, gradient: float, direction: float) -> float:
        """λ."""
        return constant
