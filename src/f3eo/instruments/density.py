"""Eigenvalues with weights, exact or a quadrature, and traces of functions of the matrix."""

from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite

import torch
from torch import Tensor

from f3eo.instruments.means import Estimate


@dataclass(frozen=True)
class Density:
    """Eigenvalues λ of a P×P matrix with their multiplicities, exact or by quadrature.

        Tr f(M) ≈ (1/S) Σ_s Σ_j w_sj f(λ_sj)

    Args:
        nodes: λ_sj, (S, m), float64; S probes, or 1 where exact. The unit is that of M: nats over
            the squared unit of the parameters.
        weights: w_sj ≥ 0, (S, m), float64; P for every s. Where exact, multiplicities.
        size: P.
        exact: whether these are the eigenvalues themselves.
    """

    nodes: Tensor
    weights: Tensor
    size: int
    exact: bool

    def trace(self, function: Callable[[Tensor], Tensor]) -> Estimate:
        """Tr f(M) and its standard error over probes: 0 where exact, NaN with a single probe.

        The error of the quadrature within a probe is not counted: it falls exponentially with the
        steps where f is smooth on the spectrum (Ubaru et al. 2017, theorem 4.1).

        Args:
            function: f, element by element, on float64 tensors.
        """
        values = function(self.nodes)
        # A weight of 0 fills up, or belongs to an eigenvalue that is not there.
        sums = torch.where(self.weights > 0, self.weights * values, 0).sum(1)
        if self.exact:
            return Estimate(float(sums[0]), 0.0)
        error = sums.std() / len(sums) ** 0.5 if len(sums) > 1 else torch.nan
        return Estimate(float(sums.mean()), float(error))

    def log_det(self, alpha: float, *, factor: float = 1.0) -> Estimate:
        """log det(c·M + α I) = Σ log(c λ + α), in nats where α and c·λ are in units of one.

        c = 1 gives the matrix of the mean loss, F̂; c = N that of the whole data, N·F̂.

        Args:
            alpha: α > 0, finite; for a Hessian large enough that c·λ + α > 0.
            factor: c > 0, finite; default 1.

        Raises:
            ValueError: α or c is out of range, or c·λ + α is not positive.
        """
        self._check(alpha, factor)
        return self.trace(lambda x: (factor * x + alpha).log())

    def effective_dimension(self, alpha: float, *, factor: float = 1.0) -> Estimate:
        """γ = Σ c λ/(c λ + α), the number of parameters that the data determine, in [0, P].

        Args:
            alpha, factor: as for `log_det`.

        Raises:
            ValueError: as for `log_det`.

        Source: MacKay 1992, equation 4.9.
        """
        self._check(alpha, factor)
        return self.trace(lambda x: factor * x / (factor * x + alpha))

    def _check(self, alpha: float, factor: float) -> None:
        for name, value in (("alpha", alpha), ("factor", factor)):
            if not (isfinite(value) and value > 0):
                raise ValueError(f"{name} is a finite number > 0, received {value}")
        lowest = float(torch.where(self.weights > 0, self.nodes, torch.inf).min()) * factor
        if lowest + alpha <= 0:
            raise ValueError(
                f"the matrix must be positive definite with alpha on its diagonal: its smallest "
                f"eigenvalue is {lowest:.4g}, so alpha must be above {-lowest:.4g}, received "
                f"{alpha}"
            )


def exact_density(values: Tensor, size: int) -> Density:
    """The density of known eigenvalues; those that are missing of P are 0.

    Args:
        values: (K,), K ≤ P.
        size: P.
    """
    nodes = torch.cat([values, values.new_zeros(1)])
    weights = torch.ones_like(nodes)
    weights[-1] = size - len(values)
    return Density(nodes.unsqueeze(0), weights.unsqueeze(0), size, exact=True)
