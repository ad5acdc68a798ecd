"""Means over samples with their standard errors."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Estimate:
    """A number and its standard error; NaN for an error that the data does not tell."""

    value: float
    error: float

    def __str__(self) -> str:
        return f"{self.value:.4g} ± {self.error:.1g}"


def weighted_mean(values: Tensor, weights: Tensor) -> Estimate:
    """x̄ = Σ_i ω_i x_i with ω_i = w_i / Σ_j w_j, and its standard error over samples.

    The error is √(n/(n − 1) Σ_i ω_i² (x_i − x̄)²), n the samples with w_i > 0; without weights the
    standard deviation over √n. (Cochran 1977, Sampling Techniques, section 6.3: a ratio's)

    Args:
        values: x_i, (N,), float64.
        weights: w_i ≥ 0, (N,), float64.
    """
    counted = weights > 0
    shares, kept = weights[counted] / weights.sum(), values[counted]
    mean = (shares * kept).sum() if len(kept) else values.new_full((), torch.nan)
    return Estimate(float(mean), _error(shares * (kept - mean)))


def jackknife(whole: Tensor, left_out: Tensor) -> Estimate:
    """A statistic and √((n − 1)/n Σ_i (t_i − t̄)²), t_i the statistic without sample i.

    Args:
        whole: the statistic, a scalar.
        left_out: t_i, (n,), n at least 2.

    Source: Efron & Stein 1981, The jackknife estimate of variance.
    """
    count = len(left_out)
    if count < 2:
        return Estimate(float(whole), float("nan"))
    spread = (left_out - left_out.mean()).square().sum()
    return Estimate(float(whole), float((spread * (count - 1) / count).sqrt()))


def _error(residuals: Tensor) -> float:
    """√(n/(n − 1) Σ_i r_i²), NaN for n < 2."""
    count = len(residuals)
    if count < 2:
        return float("nan")
    return float((residuals.square().sum() * count / (count - 1)).sqrt())
