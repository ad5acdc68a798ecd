"""A proportional-integral controller of a number that has bounds."""

from dataclasses import dataclass
from math import isfinite

from f3eo.shown import Shown


@dataclass(frozen=True)
class Output:
    """What a controller gives at one measurement.

    Args:
        value: u, within its bounds.
        integral: K_I Σ e, over the errors that counted.
    """

    value: float
    integral: float


class PI(Shown):
    """u_t = clip(u_0 + K_P e_t + K_I Σ_{s ≤ t} e_s, low, high): νPI with anti-windup.

    Departures from the source, which has ξ_t = ν ξ_{t−1} + (1 − ν) e_t in place of the first e_t:

    - no ν here: `TraceTarget` smoothes the trace before its logarithm, since the mean of the
      logarithms of noisy traces is below the logarithm of their mean;
    - an error leaves the integral alone where it would drive u further beyond a bound (conditional
      integration, Åström & Hägglund 2006, "Advanced PID Control", section 3.5).

    Args:
        proportional: K_P, at least 0; default 1.
        integral: K_I for each measurement, at least 0; default 0.05.

    Raises:
        ValueError: a gain that is negative or not finite; both are 0.

    Source: Sohrabi et al. 2024 (2406.04558), algorithm 1.
    """

    def __init__(self, proportional: float = 1.0, integral: float = 0.05) -> None:
        for name, gain in (("proportional", proportional), ("integral", integral)):
            if not (isfinite(gain) and gain >= 0):
                raise ValueError(f"PI needs a finite {name} gain >= 0, received {gain}")
        if proportional == integral == 0:
            raise ValueError("PI needs a gain above 0, received 0 and 0: for a constant use Cap")
        self.proportional = proportional
        self.integral = integral

    def __call__(
        self,
        error: float,
        integral: float,
        *,
        start: float,
        bounds: tuple[float, float],
        limited: bool = False,
    ) -> Output:
        """The output at one error.

        Args:
            error: e_t.
            integral: K_I Σ e before it.
            start: u_0.
            bounds: low and high.
            limited: whether something else has cut the last output down, so that a larger one
                would have changed nothing.
        """
        low, high = bounds
        wanted = start + integral + self.proportional * error
        above, below = limited or wanted >= high, wanted <= low
        if not (above and error > 0) and not (below and error < 0):
            integral += self.integral * error
            wanted += self.integral * error
        return Output(min(max(wanted, low), high), integral)
