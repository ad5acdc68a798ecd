"""λ as a distance in parameter space, with a bound on the structure term."""

from f3eo.strength.strength import Observation, Schedule, Strength, number


class Cap(Strength):
    """λ = min(value, limit·‖g‖/‖d‖): a distance; the structure term is at most limit·‖g‖ long.

    For every power p of the estimator, h counts as the gradient of the mean norm
    (E‖∇ℓ_i‖^p)^(1/p), so λ does not have the scale of the loss.

    Args:
        value: λ, a distance like SAM's ρ.
        limit: largest length of the structure term, in units of ‖g‖; default 1.
        schedule: see `Strength`.

    Raises:
        TypeError, ValueError: see `Strength`; a limit that is not above 0.
    """

    def __init__(self, value: float, limit: float = 1.0, schedule: Schedule | None = None) -> None:
        super().__init__(value, schedule)
        if not number(self, "limit", limit) > 0:
            raise ValueError(f"{type(self).__name__} needs limit > 0, received {limit}")
        self.limit = limit

    def at(self, observed: Observation) -> float:
        """The scheduled value, in the scale of a mean norm."""
        return self.scheduled(observed.step) * observed.norm_scale()

    def multiplier(self, constant: float, gradient: float, direction: float) -> float:
        """min(λ, limit·‖g‖/‖d‖)."""
        return min(constant, self.limit * gradient / direction) if direction > 0 else 0.0
