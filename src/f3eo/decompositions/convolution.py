"""Convolutions whose second derivatives are convolutions, in one kernel each.

Three bilinear maps that are one another's derivatives:
z = C(x, W), the transpose in x: D(δ, W), the transpose in W: G(x, δ). torch's own second derivative
goes through transposed copies and one more convolution.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from f3eo.decompositions.dispatch import autocast_dtype, visible
from f3eo.decompositions.mode import decompose

Sizes = int | Sequence[int]
Kernel = Callable[..., Tensor]


@dataclass(frozen=True)
class Geometry:
    """The arguments of `torch.convolution` after weight and bias."""

    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    transposed: bool
    output_padding: tuple[int, ...]
    groups: int

    def arguments(self) -> tuple[Any, ...]:
        """The arguments in the order of `torch.convolution`."""
        return (
            self.stride,
            self.padding,
            self.dilation,
            self.transposed,
            self.output_padding,
            self.groups,
        )


def _transposes(
    x: Tensor, weight: Tensor, delta: Tensor, geometry: Geometry, wanted: list[bool]
) -> Tensor:
    """D(δ, W) or G(x, δ), as `wanted` says; of the tensor not used only the shape matters."""
    results = torch.ops.aten.convolution_backward(
        delta, x, weight, None, *geometry.arguments(), [*wanted, False]
    )
    return results[0] if wanted[0] else results[1]


class Convolution(torch.autograd.Function):
    """C(x, W), without bias."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, geometry: Geometry) -> Tensor:
        """The convolution."""
        ctx.save_for_backward(x, weight)
        ctx.geometry = geometry
        return torch.ops.aten.convolution(x, weight, None, *geometry.arguments())

    @staticmethod
    def backward(ctx: Any, delta: Tensor) -> Any:
        """D(δ, W) and G(x, δ)."""
        x, weight = ctx.saved_tensors
        for_x = for_weight = None
        if ctx.needs_input_grad[0]:
            for_x = InputGradient.apply(delta, weight, x.detach(), ctx.geometry)
        if ctx.needs_input_grad[1]:
            for_weight = WeightGradient.apply(x, delta, weight.detach(), ctx.geometry)
        return for_x, for_weight, None


class InputGradient(torch.autograd.Function):
    """D(δ, W) in the shape of x."""

    @staticmethod
    def forward(
        ctx: Any, delta: Tensor, weight: Tensor, like: Tensor, geometry: Geometry
    ) -> Tensor:
        """The gradient of a convolution in its input."""
        ctx.save_for_backward(delta, weight)
        ctx.geometry = geometry
        return _transposes(like, weight, delta, geometry, [True, False])

    @staticmethod
    def backward(ctx: Any, v: Tensor) -> Any:
        """C(v, W) and G(v, δ)."""
        delta, weight = ctx.saved_tensors
        for_delta = for_weight = None
        if ctx.needs_input_grad[0]:
            for_delta = Convolution.apply(v, weight, ctx.geometry)
        if ctx.needs_input_grad[1]:
            for_weight = WeightGradient.apply(v, delta, weight.detach(), ctx.geometry)
        return for_delta, for_weight, None, None


class WeightGradient(torch.autograd.Function):
    """G(x, δ) in the shape of W."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, delta: Tensor, like: Tensor, geometry: Geometry) -> Tensor:
        """The gradient of a convolution in its weight."""
        ctx.save_for_backward(x, delta)
        ctx.geometry = geometry
        return _transposes(x, like, delta, geometry, [False, True])

    @staticmethod
    def backward(ctx: Any, weight: Tensor) -> Any:
        """D(δ, V) and C(x, V) for the cotangent V."""
        x, delta = ctx.saved_tensors
        for_x = for_delta = None
        if ctx.needs_input_grad[0]:
            for_x = InputGradient.apply(delta, weight, x.detach(), ctx.geometry)
        if ctx.needs_input_grad[1]:
            for_delta = Convolution.apply(x, weight, ctx.geometry)
        return for_x, for_delta, None, None


@visible
def convolved(x: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry) -> Tensor:
    """C(x, W) + b for a batch x (B, I, …); W is (O, I/groups, …), transposed (I, O/groups, …)."""
    dtype = autocast_dtype(x)
    z: Tensor = Convolution.apply(x.to(dtype), weight.to(dtype), geometry)  # pyright: ignore
    return z if bias is None else z + bias.to(dtype).view(-1, *(1,) * (x.ndim - 2))


@visible
def convolved_once(x: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry) -> Tensor:
    """The same by torch's own function, for passes without a second derivative."""
    return torch.convolution(x, weight, bias, *geometry.arguments())


def _sizes(sizes: Sizes, dims: int) -> tuple[int, ...]:
    values = (sizes,) if isinstance(sizes, int) else tuple(sizes)
    return values * dims if len(values) == 1 else values


def convolution(
    kernel: Kernel,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Sizes = 1,
    padding: Sizes | str = 0,
    dilation: Sizes = 1,
    groups: int = 1,
) -> Tensor:
    """As `torch.nn.functional.conv1d`, `conv2d` and `conv3d`."""
    dims = weight.ndim - 2
    dilation = _sizes(dilation, dims)
    if padding == "same":
        # The odd element of an even kernel goes to the end.
        totals = [d * (k - 1) for d, k in zip(dilation, weight.shape[2:], strict=True)]
        input = F.pad(input, [n for t in reversed(totals) for n in (t // 2, t - t // 2)])
    width = (0,) * dims if isinstance(padding, str) else _sizes(padding, dims)
    geometry = Geometry(_sizes(stride, dims), width, dilation, False, (0,) * dims, groups)
    return _batched(kernel, input, weight, bias, geometry)


def transposed_convolution(
    kernel: Kernel,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Sizes = 1,
    padding: Sizes = 0,
    output_padding: Sizes = 0,
    groups: int = 1,
    dilation: Sizes = 1,
) -> Tensor:
    """As `torch.nn.functional.conv_transpose1d`, `conv_transpose2d` and `conv_transpose3d`."""
    dims = weight.ndim - 2
    sizes = [_sizes(s, dims) for s in (stride, padding, dilation, output_padding)]
    geometry = Geometry(sizes[0], sizes[1], sizes[2], True, sizes[3], groups)
    return _batched(kernel, input, weight, bias, geometry)


def _batched(
    kernel: Kernel, input: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry
) -> Tensor:
    """An input without a batch dimension is a batch of one."""
    if input.ndim == weight.ndim:
        return kernel(input, weight, bias, geometry)
    return kernel(input.unsqueeze(0), weight, bias, geometry).squeeze(0)


for _function, _operations in (
    (convolution, (F.conv1d, F.conv2d, F.conv3d)),
    (transposed_convolution, (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)),
):
    decompose(*_operations, once=partial(_function, convolved_once))(partial(_function, convolved))
