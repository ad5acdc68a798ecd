"""Layer, group and root-mean-square normalisation with a second derivative in closed form.

For rows x of n numbers, x̂ = r (x − μ) with r = (var + ε)^-½ (root mean square: μ = 0). The
backward pass is dx = r P d with the projection P d = d − mean(d) − x̂ mean(d x̂), symmetric. For
the cotangent v of dx: ∂/∂d = r P v, and ∂/∂x = −(r/n) (⟨v, dx⟩ x̂ + ⟨d, x̂⟩ r P v + ⟨v, x̂⟩ dx),
from ∂r/∂x = −r² x̂/n.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from f3eo.decompositions.dispatch import visible
from f3eo.decompositions.mode import decompose

Normalise = Callable[[Tensor, int, bool, float], Tensor]
"""See `normalised`."""


def _projected(d: Tensor, normal: Tensor, rate: Tensor, centred: bool) -> Tensor:
    """r P d for rows (M, n); r is (M, 1)."""
    if centred:
        zero, one = torch.zeros_like(rate), torch.ones_like(rate)
        projected, _, _ = torch.ops.aten.native_layer_norm_backward(
            d, normal, normal.shape[1:], zero, one, None, None, [True, False, False]
        )
        return projected.mul_(rate)
    share = _inner(d, normal) / -normal.shape[1]
    return torch.addcmul(d, normal, share).mul_(rate)


def _inner(a: Tensor, b: Tensor) -> Tensor:
    """Inner products of the rows of a and b, shape (M, 1)."""
    return torch.linalg.vecdot(a, b).unsqueeze(1)


class _Backward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, d: Tensor, x: Tensor, normal: Tensor, rate: Tensor, centred: bool) -> Any:
        dx = _projected(d, normal, rate, centred)
        ctx.save_for_backward(d, normal, rate, dx)
        ctx.centred = centred
        return dx

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, v: Tensor) -> Any:
        d, normal, rate, dx = ctx.saved_tensors
        v = v.contiguous()
        for_d = _projected(v, normal, rate, ctx.centred)
        for_x = None
        if ctx.needs_input_grad[1]:
            for_x = normal * _inner(v, dx)
            for_x.addcmul_(for_d, _inner(d, normal)).addcmul_(dx, _inner(v, normal))
            for_x.mul_(rate / -normal.shape[1])
        return for_d, for_x, None, None, None


class _Forward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, centred: bool, eps: float) -> Tensor:
        if centred:
            normal, _, rate = torch.native_layer_norm(x, x.shape[1:], None, None, eps)
        else:
            rate = x.square().mean(1, keepdim=True).add_(eps).rsqrt_()
            normal = x * rate
        ctx.save_for_backward(x, normal, rate)
        ctx.centred = centred
        return normal

    @staticmethod
    def backward(ctx: Any, d: Tensor) -> Any:
        x, normal, rate = ctx.saved_tensors
        # x is passed for its graph only; its value enters through x̂ and r.
        return _Backward.apply(d.contiguous(), x, normal.detach(), rate, ctx.centred), None, None


@visible
def normalised(x: Tensor, size: int, centred: bool, eps: float) -> Tensor:
    """x̂ in the shape of x, normalised over groups of `size` consecutive elements.

    Args:
        x: any shape with a multiple of `size` elements.
        size: n.
        centred: whether the mean is subtracted.
        eps: ε, added to the variance (or the mean square).
    """
    if torch.is_autocast_enabled(x.device.type) and x.dtype != torch.float64:
        x = x.float()  # as torch does
    return _Forward.apply(x.reshape(-1, size), centred, eps).view(x.shape)  # pyright: ignore


def normalised_once(x: Tensor, size: int, centred: bool, eps: float) -> Tensor:
    """`normalised` by torch's own functions, for passes without a second derivative."""
    rows = x.reshape(-1, size)
    if centred:
        return F.layer_norm(rows, (size,), eps=eps).view(x.shape)
    return F.rms_norm(rows, (size,), eps=eps).view(x.shape)


@visible
def scaled_and_shifted(normal: Tensor, weight: Tensor, bias: Tensor | None, after: int) -> Tensor:
    """γ∘x̂ + β, where `after` dimensions of x̂ come after those of γ and β."""
    ones = (1,) * after
    scale = weight.view(*weight.shape, *ones)
    if bias is None:
        return normal * scale
    return torch.addcmul(bias.view(*bias.shape, *ones), normal, scale)


def _affine(normal: Tensor, weight: Tensor | None, bias: Tensor | None, after: int) -> Tensor:
    if weight is None:
        return normal if bias is None else normal + bias.view(*bias.shape, *(1,) * after)
    return scaled_and_shifted(normal, weight, bias, after)


@decompose(F.layer_norm, once=F.layer_norm)
def layer_norm(
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """As `torch.nn.functional.layer_norm`."""
    size = torch.Size(normalized_shape).numel()
    return _affine(normalised(input, size, True, eps), weight, bias, 0)


def rms_norm(
    normalise: Normalise,
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    eps: float | None = None,
) -> Tensor:
    """As `torch.nn.functional.rms_norm`."""
    eps = torch.finfo(input.dtype).eps if eps is None else eps
    size = torch.Size(normalized_shape).numel()
    return _affine(normalise(input, size, False, eps), weight, None, 0)


def group_norm(
    normalise: Normalise,
    input: Tensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """As `torch.nn.functional.group_norm`."""
    size = input.shape[1:].numel() // num_groups
    return _affine(normalise(input, size, True, eps), weight, bias, input.ndim - 2)


@visible
def repeated(parameter: Tensor, rows: int) -> Tensor:
    """A parameter repeated for each of `rows` rows, the same number in every sample."""
    return parameter.expand(rows, *parameter.shape)


def group_norm_once(
    input: Tensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """`group_norm` by torch's own kernel, for passes without a second derivative.

    The samples are laid out as channels of one sample. Each then has its own scale and shift, so
    that the kernel's gradients in these are per sample.
    """
    if weight is None or bias is None:
        return group_norm(normalised_once, input, num_groups, weight, bias, eps)
    rows, channels = input.shape[:2]
    beside = input.reshape(1, rows * channels, *input.shape[2:])
    scale, shift = repeated(weight, rows).flatten(), repeated(bias, rows).flatten()
    return F.group_norm(beside, rows * num_groups, scale, shift, eps).view(input.shape)


decompose(F.rms_norm, once=partial(rms_norm, normalised_once))(partial(rms_norm, normalised))
decompose(F.group_norm, once=group_norm_once)(partial(group_norm, normalised))
