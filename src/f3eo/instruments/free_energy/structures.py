"""Eigenvalues of simpler matrices in place of F̂ and G: their diagonal, and Kronecker products."""

from collections.abc import Sequence

import torch
from torch import Tensor

from f3eo.fisher.ghost import Outer, Squares, Term
from f3eo.fisher.per_sample import PerSample
from f3eo.instruments.density import Density, exact_density
from f3eo.instruments.factors import MEMORY, factors, recorded
from f3eo.instruments.operator import Operator
from f3eo.instruments.passes import problems

BLOCK = 2048
"""Entries of a vector of parameters whose block is kept whole; longer ones keep its diagonal."""


def diagonal(operator: Operator) -> Density:
    """The diagonal Σ_i ω_i Σ_k x_ik ∘ x_ik of F̂ or G, exact, as eigenvalues.

    Args:
        operator: model, closure, batches, and which matrix.

    Raises:
        FloatingPointError: it is not finite.
    """
    sums = {id(p): torch.zeros_like(p, dtype=torch.float64) for p in operator.parameters}
    total, recorder = 0.0, PerSample()
    for problem in problems(operator.model, operator.closure, operator.batches):
        found = recorded(problem, operator.of, recorder)
        total += float(found.weights.sum())
        for c in found.cotangents:
            roots = found.weights.sqrt().to(c).view(-1, *[1] * (c.ndim - 1))
            for key, squares in found.ghost.forms(Squares(), found.outputs, roots * c).items():
                sums[key] += squares
    return _density([s.flatten() / total for s in sums.values()], operator)


def kronecker(operator: Operator) -> Density:
    """Eigenvalues of a Kronecker product L ⊗ R for each weight, blocks of vectors, and diagonals.

    A parameter whose factors are x_r = Σ_t l_rt ⊗ r_rt, r = (k, i), has

        L ⊗ R = (1/N) (Σ_rt w_r l_rt l_rtᵀ) ⊗ (Σ_rt w_r r_rt r_rtᵀ) / Σ_rt w_r

    which takes l and r as independent, over samples and over positions ("expand" in Eschenhagen et
    al. 2023, 2311.00636); padded positions count, too. One of the sides is the input, the same for
    all k, and its matrix the mean of a aᵀ. Vectors, such as biases, have their exact block; what is
    neither (embeddings, operations without outer products, vectors of more than 2,048 entries) its
    exact diagonal.

    Args:
        operator: model, closure, batches, and which matrix.

    Raises:
        ValueError: factors of a batch that are written out take more than 1 GiB.
        FloatingPointError: a matrix is not finite.

    Source: Martens & Grosse 2015 (1503.05671); Ritter et al. 2018.
    """
    sums = {id(p): _Sums(p) for p in operator.parameters}
    total, recorder = 0.0, PerSample(memory=MEMORY)
    for problem in problems(operator.model, operator.closure, operator.batches):
        found = factors(problem, operator.of, recorder, lambda p, term: isinstance(term, Outer))
        if found is None:
            raise ValueError(
                f"the per-sample gradients of a batch of {problem.size} take more than {MEMORY} "
                f"bytes: use smaller batches"
            )
        total += float(found.weights.sum())
        for part in found.terms:
            for key, term in part.items():
                sums[key].add(term, found.weights)
    return _density([s.eigenvalues(total) for s in sums.values()], operator)


class _Sums:
    """Sums over the factors of one parameter; of an outer product, of both sides."""

    def __init__(self, parameter: Tensor) -> None:
        self._parameter = parameter
        self._sides: tuple[Tensor, Tensor] | None = None
        self._block: Tensor | None = None
        self._squares: Tensor | None = None
        self._count = 0.0
        self._outer: bool | None = None

    def add(self, term: Term, weights: Tensor) -> None:
        """Add Σ_i w_i of the squares of a term's rows."""
        outer = isinstance(term, Outer) and self._parameter.ndim > 1
        if self._outer not in (None, outer):
            raise ValueError(
                f"a parameter of shape {tuple(self._parameter.shape)} goes through other "
                f"operations in some batches than in others: use structure='diagonal'"
            )
        self._outer = outer
        if outer:
            assert isinstance(term, Outer)
            roots = weights.sqrt().view(-1, 1, 1)
            left, right = ((roots * s.double()).flatten(0, 1) for s in (term.left, term.right))
            own = left.mT @ left, right.mT @ right
            self._sides = (
                own
                if self._sides is None
                else (
                    self._sides[0] + own[0],
                    self._sides[1] + own[1],
                )
            )
            self._count += float(weights.sum()) * term.left.shape[1]
            return
        rows = term.rows(slice(None)).double().reshape(len(weights), -1)
        rows = weights.sqrt().unsqueeze(1) * rows
        if self._parameter.ndim <= 1 and self._parameter.numel() <= BLOCK:
            own = rows.mT @ rows
            self._block = own if self._block is None else self._block + own
        else:
            own = rows.square().sum(0)
            self._squares = own if self._squares is None else self._squares + own

    def eigenvalues(self, total: float) -> Tensor:
        """All of them, (entries of the parameter,), of the mean over samples."""
        if self._sides is not None:
            left, right = (torch.linalg.eigvalsh(side).clamp(min=0) for side in self._sides)
            return torch.outer(left, right).flatten() / (total * self._count)
        if self._block is not None:
            return torch.linalg.eigvalsh(self._block).clamp(min=0) / total
        if self._squares is not None:
            return self._squares / total
        return self._parameter.detach().new_zeros(self._parameter.numel(), dtype=torch.float64)


def _density(parts: Sequence[Tensor], operator: Operator) -> Density:
    values = torch.cat(list(parts))
    if not bool(values.isfinite().all()):
        raise FloatingPointError(
            "gradients of single samples are not finite: look at the data and the parameters"
        )
    return exact_density(values, operator.size)
