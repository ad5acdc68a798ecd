"""A fixed distance, bounded by the length of the gradient."""

from f3eo.strength.strength import Schedule, Strength, number


class Cap(Strength):
    """λ = min(value, limit·‖g‖/‖d‖): a fixed distance whose term is never longer than limit·‖g‖.

    d is of the gradient of (E‖∇ℓ_i‖^p)^(1/p), p the estimator's power.

    Args:
        value: λ, a distance as SAM's ρ.
        limit: largest length of the structure term in units of ‖g‖; default 1.
        schedule: see `Strength`.
    """

    distance = True

    def __init__(self, value: float, limit: float = 1.0, schedule: Schedule | None = None) -> None:
        super().__init__(value, schedule)
        if not number(self, "limit", limit) > 0:
            raise ValueError(f"Cap needs limit > 0, received {limit}")
        self.limit = limit

    def factor(self, value: float, gradient: float, direction: float) -> float:
        """min(λ, limit·‖g‖/‖d‖)."""
        return min(value, self.limit * gradient / direction) if direction > 0 else 0.0
