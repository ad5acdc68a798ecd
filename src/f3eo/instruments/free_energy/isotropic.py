"""Isotropic Gaussian noise on all parameters."""

from math import isfinite, log, sqrt

from f3eo.fisher.metric import Euclidean
from f3eo.instruments.free_energy.posterior import Posterior, check_curvature, traces_of
from f3eo.instruments.free_energy.prior import GaussianPrior, Prior
from f3eo.instruments.free_energy.record import Energy
from f3eo.instruments.means import Estimate
from f3eo.instruments.operator import Operator


class IsotropicNoise(Posterior):
    """q = N(θ, σ² I) with the prior N(μ, α⁻¹ I).

        accuracy    −N L − ½ σ² N Tr G                        exact to second order in σ
        complexity  ½ (α (P σ² + ‖θ − μ‖²) − P − P log(α σ²))  exact

    The σ with the smallest free energy, with c = N Tr G/P and r = ‖θ − μ‖²/P:

        σ*² = 1/(c + α)                      for a given α
        α*  = (√(r²c² + 4 r c) − r c)/(2 r)  where the prior's precision is solved for, too
        α*  = 1/(σ² + r)                     for a given σ

    `Energy.noise` is σ. The standard error of the accuracy is over ℓ_i + ½ σ² Tr G_i.

    Args:
        std: σ > 0, in the unit of the parameters; default None, σ*.
        of: "gauss_newton" (default; the closure returns a likelihood) or "fisher", the empirical
            Fisher matrix in place of G.

    Raises:
        ValueError: σ or `of` is out of range; in use, no σ* or α* exists.

    Source: Hinton & van Camp 1993; Graves 2011, Practical variational inference, section 3.
    """

    priors = (GaussianPrior,)

    def __init__(self, std: float | None = None, *, of: str = "gauss_newton") -> None:
        if std is not None and not (isfinite(std) and std > 0):
            raise ValueError(f"IsotropicNoise needs a finite std > 0 or None, received {std}")
        self.std = std
        self.of = check_curvature(of)

    def measure(self, operator: Operator, prior: Prior) -> Energy:
        """See `Posterior.measure`."""
        assert isinstance(prior, GaussianPrior)
        fit, size = traces_of(operator, Euclidean()), operator.size
        squared = prior.squared_distance(operator.parameters)
        precision, variance = _levels(
            prior.precision, self.std, fit.curvature / size, squared / size
        )
        spread = precision * (size * variance + squared) - size
        return Energy(
            fits=-fit.losses - 0.5 * variance * fit.traces,
            weights=fit.weights,
            complexity=Estimate(0.5 * (spread - size * log(precision * variance)), 0.0),
            precision=precision,
            noise=sqrt(variance),
        )


def _levels(precision: float | None, std: float | None, c: float, r: float) -> tuple[float, float]:
    """α and σ², given or solved for."""
    if precision is None:
        if std is None and not (c > 0 and r > 0):
            raise ValueError(
                f"there is no best precision for parameters at the prior's mean or data that "
                f"determine none (‖θ − μ‖²/P = {r:.4g}, N Tr G/P = {c:.4g}): give "
                f"GaussianPrior(precision)"
            )
        # In a form without cancellation; α r (c + α) = c.
        precision = 1 / (std**2 + r) if std is not None else 2 / (r + sqrt(r * r + 4 * r / c))
    return precision, std**2 if std is not None else 1 / (c + precision)
