"""Scale and shift after a normalisation, z = γ∘x̂ + β: G_i = Σ_t δ_t∘x̂_t for γ and Σ_t δ_t for β.

`f3eo.decompositions` splits normalisations into their parts. Three stay whole: layer normalisation
where gradients are not differentiated again, instance normalisation, which may update running
statistics, and batch normalisation with frozen statistics.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from f3eo.decompositions.normalisation import scaled_and_shifted
from f3eo.fisher.ghost.gradients.terms import Dense, Term
from f3eo.fisher.ghost.registry import register_layer, register_shifted
from f3eo.fisher.ghost.second_pass.shifted import SampleParameter


@register_layer(scaled_and_shifted)
def scale_and_shift(
    delta: Tensor, normal: Tensor, weight: Tensor, bias: Tensor | None, after: int
) -> dict[str, Term]:
    """Weight and bias of dimensions with `after` more behind them; delta and x̂ are (B, k, …)."""
    last = delta.ndim - after
    positions = (*range(1, last - weight.ndim), *range(last, delta.ndim))
    terms: dict[str, Term] = {"weight": Dense(_summed_products(delta, normal, positions, after))}
    if bias is not None:
        terms["bias"] = Dense(delta.sum(positions))
    return terms


def _summed_products(a: Tensor, b: Tensor, dims: tuple[int, ...], after: int) -> Tensor:
    """Σ a∘b over `dims`; the last `after` of them are the last dimensions of the tensors."""
    if not after:
        return (a * b).sum(dims)
    dims = dims[:-after]
    products = torch.linalg.vecdot(a.flatten(-after), b.flatten(-after))  # one pass
    return products.sum(dims) if dims else products


@register_shifted(scaled_and_shifted)
def shifted_scale_and_shift(
    normal: Tensor,
    weight: Tensor | SampleParameter,
    bias: Tensor | SampleParameter | None,
    after: int,
) -> Tensor:
    """γ_i∘x̂ + β_i."""

    def aligned(given: Tensor | SampleParameter) -> Tensor:
        own = given.tensor() if isinstance(given, SampleParameter) else given.unsqueeze(0)
        ones = (1,) * (normal.ndim - after - own.ndim)
        return own.view(len(own), *ones, *own.shape[1:], *(1,) * after)

    scale = aligned(weight)
    if not after and bias is not None:
        return torch.addcmul(aligned(bias), normal, scale)
    z = _Scaled.apply(normal, scale, after) if after else normal * scale
    return z if bias is None else z + aligned(bias)


class _Scaled(torch.autograd.Function):
    """γ∘x̂ for γ (B or 1, …, 1 …); the backward pass sums over positions by products of rows."""

    @staticmethod
    def forward(ctx: Any, normal: Tensor, scale: Tensor, after: int) -> Tensor:
        ctx.save_for_backward(normal, scale)
        ctx.after = after
        return normal * scale

    @staticmethod
    def backward(ctx: Any, d: Tensor) -> Any:
        normal, scale = ctx.saved_tensors
        dims = tuple(i for i in range(d.ndim) if scale.shape[i] == 1)
        for_scale = _summed_products(d, normal, dims, ctx.after).view_as(scale)
        return d * scale, for_scale, None


@register_layer(F.layer_norm)
def layer_norm(
    delta: Tensor,
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> dict[str, Term]:
    """The whole operation, where gradients are not differentiated again; recomputes x̂."""
    if weight is None:
        return {}
    return scale_and_shift(delta, F.layer_norm(input, normalized_shape, eps=eps), weight, bias, 0)


@register_shifted(F.layer_norm)
def shifted_layer_norm(
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | SampleParameter | None = None,
    bias: Tensor | SampleParameter | None = None,
    eps: float = 1e-5,
) -> Tensor | None:
    """x̂ with each sample's own scale and shift."""
    if weight is None:
        return None
    normal = F.layer_norm(input, normalized_shape, eps=eps)
    return shifted_scale_and_shift(normal, weight, bias, 0)


@register_layer(F.instance_norm)
def instance_norm(
    delta: Tensor,
    input: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> dict[str, Term]:
    """Statistics of each sample's channels, or frozen ones; does not update running ones."""
    frozen = (None, None) if use_input_stats else (running_mean, running_var)
    normal = F.instance_norm(input.flatten(0, 1), *frozen, None, None, use_input_stats, eps=eps)
    return _per_channel(delta, normal, weight, bias)


@register_layer(F.batch_norm)
def batch_norm(
    delta: Tensor,
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> dict[str, Term]:
    """Frozen statistics; the recording refuses those of the batch."""
    normal = F.batch_norm(input.flatten(0, 1), running_mean, running_var, eps=eps)
    return _per_channel(delta, normal, weight, bias)


@register_shifted(F.instance_norm)
def shifted_instance_norm(
    input: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | SampleParameter | None = None,
    bias: Tensor | SampleParameter | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Each sample's own scale and shift; does not update running statistics."""
    frozen = (None, None) if use_input_stats else (running_mean, running_var)
    normal = F.instance_norm(input.flatten(0, 1), *frozen, None, None, use_input_stats, eps=eps)
    return _shifted_per_channel(normal.view(input.shape), weight, bias)


@register_shifted(F.batch_norm)
def shifted_batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | SampleParameter | None = None,
    bias: Tensor | SampleParameter | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Each sample's own scale and shift, after frozen statistics."""
    normal = F.batch_norm(input.flatten(0, 1), running_mean, running_var, eps=eps)
    return _shifted_per_channel(normal.view(input.shape), weight, bias)


def _shifted_per_channel(
    normal: Tensor, weight: Tensor | SampleParameter | None, bias: Tensor | SampleParameter | None
) -> Tensor:
    """Scale and shift x̂ (B, k, C, …); at least one of weight and bias is given."""
    ones = torch.ones(normal.shape[2], dtype=normal.dtype, device=normal.device)
    scale = ones if weight is None else weight
    return shifted_scale_and_shift(normal, scale, bias, normal.ndim - 3)


def _per_channel(
    delta: Tensor, normal: Tensor, weight: Tensor | None, bias: Tensor | None
) -> dict[str, Term]:
    """Weight and bias (C,); delta is (B, k, C, …)."""
    given = weight if weight is not None else bias
    if given is None:
        return {}
    terms = scale_and_shift(delta, normal.view(delta.shape), given, bias, delta.ndim - 3)
    return terms if weight is not None else {"bias": terms["bias"]}
