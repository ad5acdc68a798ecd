"""A parameter with a value of its own for every sample, W_i = W + ε G_i.

Letters: B samples, T positions of a sample, S positions in the sum that gives G_i, W (m, n).
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from f3eo.fisher.ghost.gradients.terms import Dense, Hadamard, Outer, Rows, Term


class SampleParameter(ABC):
    """W_i for every sample; gradients flow into the shared W."""

    shape: torch.Size
    """Of W."""

    @abstractmethod
    def tensor(self) -> Tensor:
        """W_i written out; (B, *shape)."""

    def product(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """x W_iᵀ + b_i; (B, T, n) → (B, T, m), b_i (B or 1, 1, m)."""
        z = torch.bmm(x, self.tensor().mT)
        return z if bias is None else z + bias

    def product_from_left(self, x: Tensor) -> Tensor:
        """x W_i; (B, T, m) → (B, T, n)."""
        return torch.bmm(x, self.tensor())

    @abstractmethod
    def lookup(self, index: Tensor, padding: int | None) -> Tensor:
        """Rows of W_i at `index`, (B, T) → (B, T, n); the row `padding` is that of W, detached."""


class Derived(SampleParameter):
    """A tensor computed from parameters alone: a view, a reparametrised weight.

    Args:
        shared: the derived tensor, computed from the shared parameters.
        values: the same, computed from each sample's own, (B, *shape); with its graph.
    """

    def __init__(self, shared: Tensor, values: Tensor) -> None:
        self._shared = shared
        self._values = values
        self.shape = shared.shape

    def tensor(self) -> Tensor:
        """See `SampleParameter.tensor`."""
        return self._values

    def lookup(self, index: Tensor, padding: int | None) -> Tensor:
        """See `SampleParameter.lookup`."""
        rows = _rows_at(self._values, index)
        if padding is None:
            return rows
        return torch.where((index == padding).unsqueeze(-1), self._shared[padding].detach(), rows)


@dataclass(eq=False)
class Shifted(SampleParameter):
    """W + ε G_i, G_i the direction in which sample i moves.

    Args:
        shared: W.
        gradients: G_i.
        size: ε, one for all samples or (B,).
        single_use: whether W_i is needed exactly once; it then overwrites G_i.
    """

    shared: Tensor
    gradients: Term
    size: Tensor
    single_use: bool = False

    @property
    def shape(self) -> torch.Size:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Of W."""
        return self.shared.shape

    @cached_property
    def written(self) -> Tensor:
        """W_i written out, without a graph."""
        rows = self.gradients.rows(slice(None))
        if self.single_use and isinstance(self.gradients, Dense):
            return torch.addcmul(self.shared.detach(), rows, self._size(rows), out=rows)
        return torch.addcmul(self.shared.detach(), rows, self._size(rows))

    def tensor(self) -> Tensor:
        """See `SampleParameter.tensor`."""
        g = self.gradients
        rows = g.values if isinstance(g, Dense) else g.rows(slice(None))
        return torch.addcmul(self.shared, rows, self._size(rows))

    def _size(self, values: Tensor) -> Tensor:
        """ε, broadcast against values (B, …)."""
        return self.size.view(-1, *(1,) * (values.ndim - 1)) if self.size.ndim else self.size

    def product(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """See `SampleParameter.product`."""
        g = self.gradients
        if isinstance(g, Outer):
            z = F.linear(x, self.shared) + self.correction(x)
            return z if bias is None else z + bias
        if isinstance(g, Hadamard):
            z = torch.addcmul(F.linear(x, self.shared), g.product(x), self._size(x))
            return z if bias is None else z + bias
        return _Product.apply(x, self.shared, self.written, bias)  # pyright: ignore

    def product_from_left(self, x: Tensor) -> Tensor:
        """See `SampleParameter.product_from_left`."""
        g = self.gradients
        if isinstance(g, Outer):
            return x @ self.shared + _through(x, g.left, self._size(g.right) * g.right)
        if isinstance(g, Hadamard):
            return torch.addcmul(x @ self.shared, g.product_from_left(x), self._size(x))
        return _Product.apply(x, self.shared.mT, self.written.mT, None)  # pyright: ignore

    def correction(self, x: Tensor) -> Tensor:
        """ε x G_iᵀ for outer products, without G_i: (B, T, n) → (B, T, S) → (B, T, m)."""
        g = self.gradients
        assert isinstance(g, Outer)
        return _through(x, g.right, self._size(g.left) * g.left)

    def lookup(self, index: Tensor, padding: int | None) -> Tensor:
        """See `SampleParameter.lookup`."""
        g = self.gradients
        if isinstance(g, Rows):
            same = index.unsqueeze(2) == g.index.unsqueeze(1)
            rows = same.to(g.values.dtype) @ g.values
        else:
            rows = _rows_at(g.rows(slice(None)), index)
        if padding is not None:
            rows = rows * (index != padding).unsqueeze(-1)
        return torch.addcmul(F.embedding(index, self.shared, padding), rows, self._size(rows))


def _through(x: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """(x firstᵀ) second by way of S positions: (B, T, n), (B, S, n), (B, S, m) → (B, T, m)."""
    if first.shape[1] == 1:
        return torch.linalg.vecdot(x, first).unsqueeze(-1) * second
    return (x @ first.mT) @ second


def _rows_at(values: Tensor, index: Tensor) -> Tensor:
    return values.take_along_dim(index.unsqueeze(-1), 1)


class _Product(torch.autograd.Function):
    """x W_iᵀ + b_i; the gradient of W is one matrix product over all samples."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, shared: Tensor, written: Tensor, bias: Tensor | None
    ) -> Tensor:
        ctx.save_for_backward(x, written)
        if bias is None:
            return torch.bmm(x, written.mT)
        ctx.bias = bias.shape
        return torch.baddbmm(bias, x, written.mT)

    @staticmethod
    def backward(ctx: Any, d: Tensor) -> Any:
        x, written = ctx.saved_tensors
        for_x = torch.bmm(d, written) if ctx.needs_input_grad[0] else None
        for_shared = None
        if ctx.needs_input_grad[1]:
            for_shared = d.flatten(0, 1).mT @ x.flatten(0, 1)
        for_bias = d.sum_to_size(ctx.bias) if ctx.needs_input_grad[3] else None
        return for_x, for_shared, None, for_bias
