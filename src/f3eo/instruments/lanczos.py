"""Lanczos tridiagonalisation with full reorthogonalisation."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Krylov:
    """M restricted to the Krylov space of a start vector: Qᵀ M Q = S diag(θ) Sᵀ.

    Args:
        nodes: θ, the Ritz values, ascending; (m,), float64.
        vectors: S, (m, m), float64.
        basis: Q, orthonormal rows, (m, P).
        rest: β_m, the norm of the part of M q_m outside of the space; 0 where the space is
            invariant.
    """

    nodes: Tensor
    vectors: Tensor
    basis: Tensor
    rest: float

    def weights(self) -> Tensor:
        """Squares of the first components of S: Gauss quadrature of qᵀ f(M) q; (m,), sum 1."""
        return self.vectors[0].square()

    def residuals(self) -> Tensor:
        """‖M y − θ y‖ of every Ritz pair, within which M has an eigenvalue; (m,)."""
        return self.rest * self.vectors[-1].abs()

    def ritz(self, index: Tensor) -> Tensor:
        """Ritz vectors at these places, orthonormal rows, (k, P)."""
        return self.vectors[:, index].mT.to(self.basis) @ self.basis


def lanczos(product: Callable[[Tensor], Tensor], start: Tensor, steps: int) -> Krylov:
    """Lanczos on a symmetric matrix, every new vector made orthogonal to all before, twice.

    It ends early where the Krylov space is invariant, as far as rounding tells.

    Args:
        product: v ↦ M v, (P,).
        start: not zero, (P,).
        steps: m at most, one product each; memory m·P.

    Source: Golub & Van Loan 2013, section 10.3; Daniel et al. 1976 (twice is enough).
    """
    steps = min(steps, len(start))
    unit = torch.finfo(start.dtype).eps
    basis = start.new_empty(steps, len(start))
    basis[0] = start / torch.linalg.vector_norm(start)
    diagonal, off = list[float](), list[float]()
    rest = 0.0
    for k in range(steps):
        image = product(basis[k])
        diagonal.append(float(basis[k].double() @ image.double()))
        for _ in range(2):
            image = image - basis[: k + 1].mT @ (basis[: k + 1] @ image)
        rest = float(torch.linalg.vector_norm(image))
        scale = max(map(abs, diagonal + off))
        if rest <= unit * len(start) ** 0.5 * scale:
            rest = 0.0
            break
        if k + 1 < steps:
            off.append(rest)
            basis[k + 1] = image / rest
    main = torch.tensor(diagonal, dtype=torch.float64)
    tridiagonal = main.diag()
    if off := off[: len(diagonal) - 1]:
        side = torch.tensor(off, dtype=torch.float64)
        tridiagonal += side.diag(1) + side.diag(-1)
    nodes, vectors = torch.linalg.eigh(tridiagonal)
    if len(diagonal) == len(start):
        rest = 0.0
    to = start.device
    return Krylov(nodes.to(to), vectors.to(to), basis[: len(diagonal)], rest)
