"""Convolutions of any kind: G_i is the weight gradient of each sample alone.

All samples at once are one grouped convolution, a group a sample, at the cost of the plain weight
gradient; both of its derivatives are grouped convolutions again. Where the image is small and the
channels are many, the Gram form on patches is cheaper.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from f3eo.fisher.ghost.registry import register
from f3eo.fisher.ghost.terms import Dense, Outer, Term, rows_of

Sizes = int | Sequence[int]


@dataclass(frozen=True)
class Geometry:
    """The arguments of `torch.convolution` after weight and bias, groups last."""

    stride: list[int]
    padding: list[int]
    dilation: list[int]
    transposed: bool
    output_padding: list[int]
    groups: int

    def arguments(self, samples: int) -> tuple[Any, ...]:
        """With `samples` independent convolutions side by side."""
        return (
            self.stride,
            self.padding,
            self.dilation,
            self.transposed,
            self.output_padding,
            self.groups * samples,
        )


def _beside(tensor: Tensor) -> Tensor:
    """(B, k, C, …) as (k, B·C, …): the samples as groups of channels of k common images."""
    return tensor.transpose(0, 1).flatten(1, 2)


def _apart(tensor: Tensor, samples: int) -> Tensor:
    """(k, B·C, …) as (B, k, C, …)."""
    return tensor.unflatten(1, (samples, -1)).transpose(0, 1)


class WeightGradients(torch.autograd.Function):
    """(input (B, k, I, …), delta (B, k, O, …)) → weight gradients (B, *weight), linear in both."""

    @staticmethod
    def forward(
        ctx: Any, input: Tensor, delta: Tensor, shape: torch.Size, geometry: Geometry
    ) -> Tensor:
        """One grouped weight gradient."""
        ctx.save_for_backward(input, delta)
        ctx.geometry = geometry
        samples = len(input)
        like = input.new_empty(samples * shape[0], *shape[1:])
        _, weights, _ = torch.ops.aten.convolution_backward(
            _beside(delta),
            _beside(input),
            like,
            None,
            *geometry.arguments(samples),
            [False, True, False],
        )
        return weights.view(samples, *shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, cotangent: Tensor) -> Any:
        """⟨C, G(x, δ)⟩ = ⟨δ, conv(x, C)⟩: each sample convolved with its own C_i, and back."""
        input, delta = ctx.saved_tensors
        samples = len(input)
        weights, arguments = cotangent.flatten(0, 1), ctx.geometry.arguments(samples)
        for_input = for_delta = None
        if ctx.needs_input_grad[0]:
            for_input, _, _ = torch.ops.aten.convolution_backward(
                _beside(delta), _beside(input), weights, None, *arguments, [True, False, False]
            )
            for_input = _apart(for_input, samples)
        if ctx.needs_input_grad[1]:
            for_delta = torch.ops.aten.convolution(_beside(input), weights, None, *arguments)
            for_delta = _apart(for_delta, samples)
        return for_input, for_delta, None, None


@dataclass(frozen=True)
class Convolved(Term):
    """Weight gradients of each sample's convolution.

    Args:
        input: (B, k, I, …).
        delta: (B, k, O, …).
        shape: of the weight.
        geometry: of the convolution.
    """

    input: Tensor
    delta: Tensor
    shape: torch.Size
    geometry: Geometry

    def rows(self, part: slice) -> Tensor:
        """See `Term.rows`."""
        return WeightGradients.apply(  # pyright: ignore[reportReturnType]
            self.input[part], self.delta[part], self.shape, self.geometry
        )

    def total(self) -> Tensor:
        """See `Term.total`."""
        return self.rows(slice(0, len(self.input))).sum(0)

    def closed(self) -> bool:
        """See `Term.closed`: the norms come from the gradients written out."""
        return False

    def squared_norms(self) -> Tensor:
        """See `Term.squared_norms`."""
        return rows_of(self.rows(slice(0, len(self.input)))).square().sum(1)


def _terms(
    delta: Tensor, input: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry
) -> dict[str, Term] | None:
    if delta.ndim != weight.ndim + 1:  # an unbatched call has no samples to tell apart
        return None
    input = input.to(delta.dtype)
    term: Term = Convolved(input, delta, weight.shape, geometry)
    if weight.ndim == 4 and geometry.groups == 1 and not geometry.transposed:
        positions, q = delta[0, :, 0].numel(), weight.shape[0]
        p = weight[0].numel()
        # Few positions, many channels: the Gram form, on patches.
        if 3 * positions * (p + q) < 2 * p * q:
            term = _patches(delta, input, weight, geometry)
    terms: dict[str, Term] = {"weight": term}
    if bias is not None:
        terms["bias"] = Dense(delta.flatten(3).sum((1, 3)))
    return terms


def _patches(delta: Tensor, input: Tensor, weight: Tensor, geometry: Geometry) -> Outer:
    """A linear layer on the patches under the kernel at every output position."""
    samples = len(delta)
    patches = F.unfold(
        input.flatten(0, 1),
        tuple(weight.shape[2:]),
        tuple(geometry.dilation),
        tuple(geometry.padding),
        tuple(geometry.stride),
    ).unflatten(0, (samples, -1))
    left, right = delta.flatten(3).mT.flatten(1, 2), patches.mT.flatten(1, 2)
    return Outer(left, right, tuple(weight.shape))


def _sizes(sizes: Sizes, dims: int) -> list[int]:
    values = [sizes] if isinstance(sizes, int) else list(sizes)
    return values * dims if len(values) == 1 else values


@register(F.conv1d, F.conv2d, F.conv3d)
def convolution(
    delta: Tensor,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Sizes = 1,
    padding: Sizes | str = 0,
    dilation: Sizes = 1,
    groups: int = 1,
) -> dict[str, Term] | None:
    """Weight (O, I/groups, …) and bias (O,)."""
    dims = weight.ndim - 2
    dilation = _sizes(dilation, dims)
    if padding == "same":
        # The odd element of an even kernel goes to the end.
        totals = [d * (k - 1) for d, k in zip(dilation, weight.shape[2:], strict=True)]
        input = F.pad(input, [n for t in reversed(totals) for n in (t // 2, t - t // 2)])
    width = [0] * dims if isinstance(padding, str) else _sizes(padding, dims)
    geometry = Geometry(_sizes(stride, dims), width, dilation, False, [0] * dims, groups)
    return _terms(delta, input, weight, bias, geometry)


@register(F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)
def transposed(
    delta: Tensor,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Sizes = 1,
    padding: Sizes = 0,
    output_padding: Sizes = 0,
    groups: int = 1,
    dilation: Sizes = 1,
) -> dict[str, Term] | None:
    """Weight (I, O/groups, …) and bias (O,)."""
    dims = weight.ndim - 2
    sizes = [_sizes(s, dims) for s in (stride, padding, dilation, output_padding)]
    geometry = Geometry(sizes[0], sizes[1], sizes[2], True, sizes[3], groups)
    return _terms(delta, input, weight, bias, geometry)
