"""The metric of the trace: Tr(D F D) = E‖D ∇ℓ_i‖², D a diagonal that follows the parameters.

Tr F depends on the units of the parameters: a layer times c and the next one over c are the same
function with another trace (Dinh et al. 2017, 1703.04933). With D in the units of the parameters
the trace does not change (relative flatness, Petzka et al. 2021, 2001.00939; the perturbation of
ASAM, Kwon et al. 2021, 2102.11600).

It is a free energy, too. Under multiplicative noise, q = N(θ, α D²) with D = |θ|, the expected loss
rises by (α/2) Tr(D F D) to second order where the model fits, and the divergence from a
log-uniform prior does not depend on θ (Kingma et al. 2015, 1506.02557).

D is held constant where the trace is differentiated: h = (1/p) ∇ E‖D ∇ℓ_i‖^p at fixed D.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite

import torch
from torch import Tensor

from f3eo.shown import Shown
from f3eo.tensors import squared_norm


@dataclass(frozen=True)
class Diagonal:
    """D of one parameter of shape (m, …), a product of factors that broadcast to it.

    Args:
        rows: (m, 1, …), a factor for every slice along the first dimension; default none.
        columns: (1, …), a factor for every place within a slice; default none.
        full: in the parameter's shape; default none.
    """

    rows: Tensor | None = None
    columns: Tensor | None = None
    full: Tensor | None = None

    def times(self, values: Tensor) -> Tensor:
        """D ⊙ v for v (…, *shape)."""
        for factor in (self.rows, self.columns, self.full):
            if factor is not None:
                values = values * factor
        return values

    def squared_length(self, values: Tensor) -> Tensor:
        """‖v / D‖² for v in the parameter's shape, 0 where D is; a scalar."""
        if self.rows is not None and self.columns is None and self.full is None:
            lengths, rows = _row_norms(values), self.rows.flatten()
            return (lengths / torch.where(rows > 0, rows, torch.inf)).square().sum()
        ones = self.times(torch.ones_like(values))
        return (values / torch.where(ones > 0, ones, torch.inf)).square().sum()


Diagonals = Mapping[int, Diagonal]
"""D by the id of a parameter; the identity where one is missing."""


def times(values: Sequence[Tensor], parameters: Sequence[Tensor], of: Diagonals) -> list[Tensor]:
    """D ⊙ v, for a tensor v in the shape of every parameter."""
    pairs = zip(values, parameters, strict=True)
    return [v if (d := of.get(id(p))) is None else d.times(v) for v, p in pairs]


def length(parameters: Sequence[Tensor], of: Diagonals) -> Tensor:
    """‖θ / D‖ over all parameters, without places where D is 0; a scalar."""
    if not of:
        return squared_norm(list(parameters)).sqrt()
    squares = []
    for p in parameters:
        d = of.get(id(p))
        squares.append(p.square().sum() if d is None else d.squared_length(p))
    return torch.stack([s.to(squares[0]) for s in squares]).sum().sqrt()


class Metric(Shown, ABC):
    """D of every parameter, computed anew at every measurement.

    Args:
        vectors: D of parameters with less than two dimensions (biases, scales of normalisation
            layers), a number at least 0; default None, |θ| as the theory says. At 0 they carry no
            noise.

    Raises:
        ValueError: a number that is negative or not finite.
    """

    def __init__(self, *, vectors: float | None = None) -> None:
        if vectors is not None and not (isfinite(vectors) and vectors >= 0):
            raise ValueError(
                f"{type(self).__name__} needs vectors=None (|θ|) or a finite number >= 0, received "
                f"{vectors}"
            )
        self.vectors = vectors

    @torch.no_grad()
    def of(self, parameters: Sequence[Tensor]) -> Diagonals:
        """D of these parameters, as they are now."""
        found = {}
        for p in parameters:
            if p.ndim >= 2:
                found[id(p)] = self.matrix(p)
            elif self.vectors is None:
                found[id(p)] = Diagonal(full=p.abs())
            elif self.vectors != 1:
                found[id(p)] = Diagonal(full=torch.full_like(p, self.vectors))
        return found

    def size(self, parameters: Sequence[Tensor]) -> int:
        """The number of entries of these parameters for which D is not 0 by choice."""
        return sum([p.numel() for p in parameters if p.ndim >= 2 or self.vectors != 0])

    @abstractmethod
    def matrix(self, parameter: Tensor) -> Diagonal:
        """D of a parameter (m, …) with two dimensions or more."""


class Euclidean(Metric):
    """D = 1: the Fisher trace itself."""

    def __init__(self) -> None:
        super().__init__(vectors=1.0)

    def of(self, parameters: Sequence[Tensor]) -> Diagonals:
        """See `Metric.of`: nothing, all are the identity."""
        return {}

    def matrix(self, parameter: Tensor) -> Diagonal:
        """See `Metric.matrix`."""
        return Diagonal()


class Elementwise(Metric):
    """D = |θ|. The trace is that of relative noise on every single parameter.

    It does not change where a unit's inputs are scaled up and its outputs down, for units that are
    homogeneous (ReLU). It costs one matrix product per layer and pass more than the others.

    Args:
        vectors: see `Metric`.
    """

    def matrix(self, parameter: Tensor) -> Diagonal:
        """See `Metric.matrix`."""
        return Diagonal(full=parameter.abs())


class ByRow(Metric):
    """D_kj = √(mean_j θ_kj²), the root mean square of a row: of an output unit, or of a filter.

    It does not change where whole layers are scaled, and costs nothing beside the norms.

    Args:
        vectors: see `Metric`.
    """

    def matrix(self, parameter: Tensor) -> Diagonal:
        """See `Metric.matrix`."""
        return Diagonal(rows=_row_roots(parameter))


class Factored(Metric):
    """D_kj = r_k c_j with r_k² = mean_j θ_kj² and c_j² = mean_k θ_kj² / mean θ².

    The nearest product of a row's and a column's factor to θ² (Shazeer & Stern 2018, 1804.04235),
    at the price of `ByRow`.

    Args:
        vectors: see `Metric`.
    """

    def matrix(self, parameter: Tensor) -> Diagonal:
        """See `Metric.matrix`."""
        columns = parameter.square().mean(0, keepdim=True)
        mean = columns.mean()
        columns = (columns / torch.where(mean > 0, mean, 1)).sqrt()
        return Diagonal(_row_roots(parameter), columns)


def _row_norms(parameter: Tensor) -> Tensor:
    """‖θ_k‖ of every row, (m,)."""
    return torch.linalg.vector_norm(parameter.flatten(1), dim=1)


def _row_roots(parameter: Tensor) -> Tensor:
    """√(mean_j θ_kj²) of every row, (m, 1, …)."""
    norms = _row_norms(parameter) / parameter.shape[1:].numel() ** 0.5
    return norms.view(-1, *(1,) * (parameter.ndim - 1))
