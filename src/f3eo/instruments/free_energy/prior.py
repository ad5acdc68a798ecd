"""Priors over the parameters."""

from collections.abc import Sequence
from math import isfinite

import torch
from torch import Tensor

from f3eo.shown import Shown


class GaussianPrior(Shown):
    """p(θ) = N(μ, α⁻¹ I).

    Weight decay c on the mean loss of N samples (the gradient c θ) is α = N c.

    Args:
        precision: α > 0, in one over the squared unit of the parameters. None is empirical Bayes:
            the α with the smallest free energy, at MacKay's fixed point α ‖θ − μ‖² = γ.
        mean: μ, a tensor in the shape of every parameter; default 0.

    Raises:
        ValueError: a precision that is not positive or not finite.

    Source: MacKay 1992, Bayesian interpolation, section 4.
    """

    def __init__(
        self, precision: float | None = None, *, mean: Sequence[Tensor] | None = None
    ) -> None:
        if precision is not None and not (isfinite(precision) and precision > 0):
            raise ValueError(
                f"GaussianPrior needs a finite precision > 0, or None (empirical Bayes), received "
                f"{precision}"
            )
        self.precision = precision
        self.mean = None if mean is None else list(mean)

    @torch.no_grad()
    def squared_distance(self, parameters: Sequence[Tensor]) -> float:
        """‖θ − μ‖² in float64.

        Raises:
            ValueError: μ does not have the shapes of the parameters.
        """
        means = self.mean
        if means is None:
            return float(sum([p.double().square().sum() for p in parameters]))
        if [m.shape for m in means] != [p.shape for p in parameters]:
            raise ValueError(
                f"GaussianPrior needs a mean for each of the {len(parameters)} trained parameters, "
                f"in their shapes, received {[tuple(m.shape) for m in means]}"
            )
        pairs = zip(parameters, means, strict=True)
        return float(sum([(p.double() - m.to(p.device)).square().sum() for p, m in pairs]))


class LogUniformPrior(Shown):
    """p(|θ_k|) ∝ 1/|θ_k|: improper and without units, so that divergences have a free constant.

    Source: Kingma et al. 2015 (1506.02557); Molchanov et al. 2017 (1701.05369).
    """


class RelativePrior(Shown):
    """p(θ) = N(0, s² D²), D the metric of the posterior: of the parameters' own size, and proper.

    D follows the parameters, so this prior does; with rows Σ (θ/D)² is P whatever they are, and
    elementwise, too, so only the noise is paid for.

    Args:
        variance: s² > 0, without unit; default 1.

    Raises:
        ValueError: a variance that is not positive or not finite.
    """

    def __init__(self, variance: float = 1.0) -> None:
        if not (isfinite(variance) and variance > 0):
            raise ValueError(f"RelativePrior needs a finite variance > 0, received {variance}")
        self.variance = variance


Prior = GaussianPrior | LogUniformPrior | RelativePrior
"""p(θ), of which each posterior knows the divergence in closed form."""
