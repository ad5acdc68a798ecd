"""Gaussian noise relative to the parameters."""

import warnings
from math import isfinite, log

import torch

from f3eo.fisher.metric import Elementwise, Metric, length, times
from f3eo.instruments.free_energy.posterior import Posterior, check_curvature, traces_of
from f3eo.instruments.free_energy.prior import LogUniformPrior, Prior, RelativePrior
from f3eo.instruments.free_energy.record import Energy
from f3eo.instruments.means import Estimate
from f3eo.instruments.operator import Operator


class MultiplicativeNoise(Posterior):
    """q = N(θ, α D²), D in the units of the parameters.

        accuracy    −N L − ½ α N Tr(D G D)      exact to second order in the noise

        LogUniformPrior():
        complexity  −½ P log α                  for α ≪ 1, up to a constant
        α* = P/(N Tr(D G D))

        RelativePrior(s²), N(0, s² D²):
        complexity  ½ (P (α/s² − 1 − log(α/s²)) + ‖θ/D‖²/s²)  exact
        α* = P/(N Tr(D G D) + P/s²)

    P counts the entries with D > 0; the others carry no noise. The constant of the log-uniform
    prior is the same for all models with the same P (0.636 P at small α by the fit of Molchanov et
    al., eq. 14), and for `ByRow()` its form is taken over from `Elementwise()`. Above α = 1 neither
    term holds, which is warned of: where P is far above N, α* may be there.

    `Energy.noise` is α, without unit. The standard error of the accuracy is over
    ℓ_i + ½ α Tr(D G_i D).

    Args:
        alpha: α > 0, variance of the relative noise; default None, α*.
        metric: D (`f3eo.fisher.metric`); default `Elementwise()`, D = |θ|.
        of: "gauss_newton" (default; the closure returns a likelihood) or "fisher", the empirical
            Fisher matrix in place of G.

    Raises:
        ValueError: α or `of` is out of range; in use, no α* exists.
        TypeError: the metric is none.

    Source: Kingma et al. 2015 (1506.02557), section 3; Molchanov et al. 2017 (1701.05369).
    """

    priors = (LogUniformPrior, RelativePrior)

    def __init__(
        self,
        alpha: float | None = None,
        *,
        metric: Metric | None = None,
        of: str = "gauss_newton",
    ) -> None:
        if alpha is not None and not (isfinite(alpha) and alpha > 0):
            raise ValueError(
                f"MultiplicativeNoise needs a finite alpha > 0 or None, received {alpha}"
            )
        if metric is not None and not isinstance(metric, Metric):
            raise TypeError(
                f"MultiplicativeNoise needs a metric such as Elementwise() or ByRow(), received "
                f"{metric!r}"
            )
        self.alpha = alpha
        self.metric = metric if metric is not None else Elementwise()
        self.of = check_curvature(of)

    def measure(self, operator: Operator, prior: Prior) -> Energy:
        """See `Posterior.measure`."""
        fit = traces_of(operator, self.metric)
        ones = [torch.ones_like(p) for p in operator.parameters]
        diagonals = self.metric.of(operator.parameters)
        scales = times(ones, operator.parameters, diagonals)
        size = int(sum([(d > 0).sum() for d in scales]))
        proper = prior.variance if isinstance(prior, RelativePrior) else None
        alpha = self.alpha
        if alpha is None:
            cost = fit.curvature + (size / proper if proper else 0.0)
            if not (cost > 0 and size):
                raise ValueError(
                    f"there is no best noise level where the data determine no parameter "
                    f"(N Tr(D G D) = {fit.curvature:.4g}): give MultiplicativeNoise(alpha)"
                )
            alpha = size / cost
        if alpha > 1:
            warnings.warn(
                f"the relative noise has variance {alpha:.3g}, more than the parameters "
                f"themselves: neither the second order of the loss nor −½ P log α holds there, and "
                f"the record is no bound; give a smaller alpha, use RelativePrior() or "
                f"IsotropicNoise()",
                stacklevel=3,
            )
        complexity = -0.5 * size * log(alpha)
        if proper:
            relative = alpha / proper
            squared = float(length(operator.parameters, diagonals).detach().double() ** 2)
            complexity = 0.5 * (size * (relative - 1 - log(relative)) + squared / proper)
        return Energy(
            fits=-fit.losses - 0.5 * alpha * fit.traces,
            weights=fit.weights,
            complexity=Estimate(complexity, 0.0),
            noise=alpha,
        )
