"""The record of a free energy: accuracy, complexity, their difference."""

from dataclasses import dataclass

from torch import Tensor

from f3eo.instruments.means import Estimate, weighted_mean


@dataclass(frozen=True)
class Energy:
    """F = KL(q‖p) − E_q log p(D|θ), complexity minus accuracy, in nats.

    −F is a lower bound of log p(D), or its Laplace approximation (`Laplace`).

    Args:
        fits: E_q log p(y_i|θ) of every sample, (n,), float64, nats.
        weights: w_i, how often each sample counts, (n,), float64; 1 without weights.
        complexity: KL(q‖p) of all parameters, nats; the error is that of a quadrature over random
            probes, 0 where exact. Up to a constant for a prior that is improper.
        precision: α of the prior, given or solved for; None if it has none.
        noise: the posterior's own noise level, given or solved for; None if it has none.
        dimension: γ, the number of parameters that the data determine; None if not measured.
    """

    fits: Tensor
    weights: Tensor
    complexity: Estimate
    precision: float | None = None
    noise: float | None = None
    dimension: Estimate | None = None

    @property
    def samples(self) -> float:
        """N, the sum of the weights."""
        return float(self.weights.sum())

    @property
    def accuracy_per_sample(self) -> Estimate:
        """(1/N) Σ_i w_i E_q log p(y_i|θ), with its standard error over samples; nats."""
        return weighted_mean(self.fits, self.weights)

    @property
    def accuracy(self) -> Estimate:
        """E_q log p(D|θ) of all samples, N times `accuracy_per_sample`; nats."""
        mean = self.accuracy_per_sample
        return Estimate(mean.value * self.samples, mean.error * self.samples)

    @property
    def complexity_per_sample(self) -> Estimate:
        """KL(q‖p)/N, nats."""
        return Estimate(self.complexity.value / self.samples, self.complexity.error / self.samples)

    @property
    def value(self) -> float:
        """F = complexity − accuracy of all samples, nats."""
        return self.complexity.value - self.accuracy.value

    @property
    def per_sample(self) -> float:
        """F/N, nats."""
        return self.value / self.samples

    def __str__(self) -> str:
        return (
            f"free energy {self.per_sample:.4g} nats per sample = complexity "
            f"{self.complexity_per_sample.value:.4g} − accuracy {self.accuracy_per_sample}"
        )
