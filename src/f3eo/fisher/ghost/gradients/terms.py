"""Closed forms of the per-sample gradients G_i; norms and totals without materialising them.

Squares, and with them the cotangents of norms, are in float32 or wider: in float16 those of fitted
samples underflow.

Letters: N samples, T positions of a sample, m × n the parameter as a matrix.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from f3eo.fisher.ghost.symbolic_sizes import typical
from f3eo.fisher.metric import Diagonal
from f3eo.tensors import wide

MEMORY_TRAFFIC = 16
"""Multiplications that cost as much as to write and read one element of a gradient, over those of
the Gram form: at 6 T² (m + n) against m n elements (measured on a CPU with AVX-512)."""


class Term(ABC):
    """Per-sample gradients G_i, i < N, of one parameter."""

    @abstractmethod
    def rows(self, part: slice) -> Tensor:
        """The gradients G_i of a slice of samples, written out: (n, *shape)."""

    @abstractmethod
    def total(self) -> Tensor:
        """Σ_i G_i, in the parameter's shape."""

    def closed(self) -> bool:
        """Whether `squared_norms` is cheaper than writing the gradients out."""
        return True

    def compact(self) -> bool:
        """Whether a second pass is cheaper with this form than with the gradients written out."""
        return False

    @abstractmethod
    def squared_norms(self) -> Tensor:
        """‖G_i‖² for every sample; (N,)."""

    def scaled(self, diagonal: Diagonal) -> "Term":
        """D ⊙ G_i, of the same form where there is one; D has no graph."""
        return Dense(diagonal.times(self.rows(slice(None))))

    def squares(self, factors: Tensor | None = None) -> Tensor | None:
        """Σ_i c_i G_i ∘ G_i in the parameter's shape, c_i = 1 or given, (N,), without a graph.

        None where G_i must be written out for it.
        """
        return None

    def products(self, vector: Tensor) -> Tensor | None:
        """⟨G_i, v⟩ for v in the parameter's shape, (N,); None where G_i must be written out."""
        return None


@dataclass(frozen=True)
class Dense(Term):
    """Per-sample gradients written out.

    Args:
        values: (N, *shape).
    """

    values: Tensor

    def rows(self, part: slice) -> Tensor:
        """See `Term.rows`."""
        return self.values[part]

    def total(self) -> Tensor:
        """See `Term.total`."""
        return self.values.sum(0)

    def squared_norms(self) -> Tensor:
        """See `Term.squared_norms`."""
        return squared_rows(wide(rows_of(self.values)))

    def squares(self, factors: Tensor | None = None) -> Tensor:
        """See `Term.squares`."""
        values = wide(self.values).square()
        return values.sum(0) if factors is None else torch.tensordot(factors.to(values), values, 1)

    def products(self, vector: Tensor) -> Tensor:
        """See `Term.products`."""
        values = wide(rows_of(self.values))
        return values @ vector.to(values).flatten()


@dataclass(frozen=True)
class Outer(Term):
    """Sums of outer products: G_i = Σ_t left_it ⊗ right_it.

    Args:
        left: (N, T, m).
        right: (N, T, n).
        shape: of the parameter, m · n elements; default (m, n).
    """

    left: Tensor
    right: Tensor
    shape: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        dtype = torch.promote_types(self.left.dtype, self.right.dtype)
        object.__setattr__(self, "left", self.left.to(dtype))
        object.__setattr__(self, "right", self.right.to(dtype))
        shape = self.shape or (self.left.shape[-1], self.right.shape[-1])
        object.__setattr__(self, "shape", tuple(shape))

    def rows(self, part: slice) -> Tensor:
        """See `Term.rows`."""
        products = self.left[part].mT @ self.right[part]
        return products.reshape(-1, *self.shape)

    def total(self) -> Tensor:
        """See `Term.total`; one matrix product over samples and positions."""
        return (self.left.flatten(0, 1).mT @ self.right.flatten(0, 1)).view(self.shape)

    def closed(self) -> bool:
        """Gram form costs T²(m + n) multiplications a sample, the gradients written out T·m·n."""
        m, n = self.left.shape[2], self.right.shape[2]
        positions = typical(self.left.shape[1])
        return positions * (m + n) <= m * n

    def compact(self) -> bool:
        """See `Term.compact`."""
        m, n = self.left.shape[2], self.right.shape[2]
        positions = typical(self.left.shape[1])
        return positions == 1 or positions**2 * (m + n) <= MEMORY_TRAFFIC * m * n

    def squared_norms(self) -> Tensor:
        """‖G_i‖² = Σ_ts (left_t·left_s)(right_t·right_s) for every sample; (N,)."""
        left, right = wide(self.left), wide(self.right)
        if left.shape[1] == 1:
            return left.square().sum((1, 2)) * right.square().sum((1, 2))
        return ((left @ left.mT) * (right @ right.mT)).sum((1, 2))

    def squares(self, factors: Tensor | None = None) -> Tensor | None:
        """Σ_i c_i left_i² ⊗ right_i² with one position; see `Term.squares`."""
        if self.left.shape[1] > 1:
            return None
        left, right = (wide(side).squeeze(1).square() for side in (self.left, self.right))
        left = left if factors is None else left * factors.to(left).unsqueeze(1)
        return (left.mT @ right).view(self.shape)

    def products(self, vector: Tensor) -> Tensor:
        """⟨G_i, v⟩ = Σ_t left_t · v right_t; see `Term.products`."""
        left, right = wide(self.left), wide(self.right)
        matrix = vector.to(left).view(left.shape[-1], right.shape[-1])
        return (left * (right @ matrix.mT)).sum((1, 2))

    def scaled(self, diagonal: Diagonal) -> Term:
        """See `Term.scaled`; factors of rows and columns go to the two sides."""
        left, right, matrix = self.left, self.right, len(self.shape) > 1
        if diagonal.full is None and matrix:
            if diagonal.rows is not None:
                left = left * diagonal.rows.flatten()
            if diagonal.columns is not None:
                right = right * diagonal.columns.expand(1, *self.shape[1:]).flatten()
            return Outer(left, right, self.shape)
        if diagonal.full is not None and matrix and left.shape[1] == 1:
            return Hadamard(left, right, diagonal.full.flatten(1), self.shape)
        return super().scaled(diagonal)


@dataclass(frozen=True)
class Hadamard(Term):
    """Outer products times one matrix: G_i = M ⊙ (left_i ⊗ right_i).

    Args:
        left: (N, 1, m).
        right: (N, 1, n).
        matrix: M, (m, n), without a graph.
        shape: of the parameter, m · n elements.
    """

    left: Tensor
    right: Tensor
    matrix: Tensor
    shape: tuple[int, ...]

    def rows(self, part: slice) -> Tensor:
        """See `Term.rows`."""
        products = self.left[part].mT * self.right[part] * self.matrix
        return products.reshape(-1, *self.shape)

    def total(self) -> Tensor:
        """See `Term.total`."""
        products = self.left.flatten(0, 1).mT @ self.right.flatten(0, 1)
        return (products * self.matrix).view(self.shape)

    def compact(self) -> bool:
        """See `Term.compact`."""
        return True

    def squared_norms(self) -> Tensor:
        """‖G_i‖² = left_i² · M² right_i²; (N,)."""
        left, right = (wide(side).flatten(1).square() for side in (self.left, self.right))
        return (left * (right @ wide(self.matrix).square().mT)).sum(1)

    def scaled(self, diagonal: Diagonal) -> Term:
        """See `Term.scaled`."""
        matrix = diagonal.times(self.matrix.view(self.shape)).view_as(self.matrix)
        return Hadamard(self.left, self.right, matrix, self.shape)

    def product(self, x: Tensor) -> Tensor:
        """x G_iᵀ without G_i: (N, T, n) → (N, T, m)."""
        return self.left * torch.nn.functional.linear(x * self.right, self.matrix)

    def product_from_left(self, x: Tensor) -> Tensor:
        """x G_i without G_i: (N, T, m) → (N, T, n)."""
        return self.right * ((x * self.left) @ self.matrix)


@dataclass(frozen=True)
class Rows(Term):
    """Sums of rows: G_i = Σ_t e(index_it) ⊗ values_it, e(k) the k-th of `count` unit vectors.

    Args:
        index: (N, T), int64.
        values: (N, T, n).
        count: number of rows of the parameter.
    """

    index: Tensor
    values: Tensor
    count: int

    def rows(self, part: slice) -> Tensor:
        """See `Term.rows`."""
        index, values = self.index[part], self.values[part]
        out = values.new_zeros(len(index), self.count, values.shape[-1])
        return out.scatter_add(1, index.unsqueeze(-1).expand_as(values), values)

    def total(self) -> Tensor:
        """See `Term.total`."""
        flat = self.values.flatten(0, 1)
        out = flat.new_zeros(self.count, flat.shape[-1])
        return out.index_add(0, self.index.flatten(), flat)

    def compact(self) -> bool:
        """See `Term.compact`."""
        return True

    def squared_norms(self) -> Tensor:
        """‖G_i‖² = Σ_ts [index_t = index_s] (values_t·values_s); (N,)."""
        values = wide(self.values)
        if self.index.shape[1] == 1:
            return values.square().sum((1, 2))
        same = self.index.unsqueeze(1) == self.index.unsqueeze(2)
        return ((values @ values.mT) * same).sum((1, 2))

    def squares(self, factors: Tensor | None = None) -> Tensor | None:
        """Σ_i c_i e(index_i) ⊗ values_i² with one position; see `Term.squares`."""
        if self.index.shape[1] > 1:
            return None
        values = wide(self.values).square()
        values = values if factors is None else values * factors.to(values).view(-1, 1, 1)
        return Rows(self.index, values, self.count).total()

    def products(self, vector: Tensor) -> Tensor:
        """⟨G_i, v⟩ = Σ_t values_t · v(index_t); see `Term.products`."""
        values = wide(self.values)
        return (values * vector.to(values)[self.index]).sum((1, 2))

    def scaled(self, diagonal: Diagonal) -> Term:
        """See `Term.scaled`; every value takes the factors of its row."""
        values = self.values
        if diagonal.rows is not None:
            values = values * diagonal.rows[self.index, 0, None]
        if diagonal.columns is not None:
            values = values * diagonal.columns
        if diagonal.full is not None:
            values = values * diagonal.full[self.index]
        return Rows(self.index, values, self.count)


def rows_of(values: Tensor) -> Tensor:
    """(N, *shape) as (N, elements); also for scalars and for no samples."""
    return values.reshape(len(values), values.shape[1:].numel())


def squared_rows(values: Tensor) -> Tensor:
    """‖v_i‖² for v (N, elements); (N,)."""
    if torch.is_grad_enabled() and values.requires_grad:
        return values.square().sum(1)
    return torch.linalg.vector_norm(values, dim=1).square()  # one pass, but no gradient at zero
