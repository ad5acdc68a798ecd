"""Convolutions of any kind: G_i is the weight gradient of each sample alone.

One grouped convolution, a group for each sample, gives G_i of all samples at the cost of the plain
weight gradient; its derivatives are grouped convolutions again. For small images with many channels
the Gram form on patches is cheaper.
"""

from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from f3eo.decompositions.convolution import (
    Geometry,
    InputGradient,
    WeightGradient,
    convolved,
    convolved_once,
)
from f3eo.fisher.ghost.gradients.terms import Dense, Outer, Term, rows_of, squared_rows
from f3eo.fisher.ghost.registry import register_layer, register_shifted
from f3eo.fisher.ghost.second_pass.shifted import SampleParameter, Shifted


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
        input, delta = self.input[part], self.delta[part]
        samples = len(input)
        like = input.new_empty(samples * self.shape[0], *self.shape[1:])
        geometry = replace(self.geometry, groups=self.geometry.groups * samples)
        rows = WeightGradient.apply(_as_groups(input), _as_groups(delta), like, geometry)
        return rows.view(samples, *self.shape)  # pyright: ignore[reportOptionalMemberAccess]

    def total(self) -> Tensor:
        """See `Term.total`."""
        return self.rows(slice(0, len(self.input))).sum(0)

    def closed(self) -> bool:
        """See `Term.closed`; the norms need the gradients written out."""
        return False

    def squared_norms(self) -> Tensor:
        """See `Term.squared_norms`."""
        return squared_rows(rows_of(self.rows(slice(0, len(self.input)))))


def _plain(geometry: Geometry) -> bool:
    return geometry.groups == 1 and not geometry.transposed


def _as_groups(tensor: Tensor) -> Tensor:
    """(B, k, C, …) as (k, B·C, …): each sample a group of channels of k shared images."""
    return tensor.transpose(0, 1).flatten(1, 2)


@register_layer(convolved, convolved_once)
def convolution(
    delta: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry
) -> dict[str, Term]:
    """Weight and bias (O,); x and delta are (B, k, C, …)."""
    x = x.to(delta.dtype)
    term: Term = Convolved(x, delta, weight.shape, geometry)
    if weight.ndim == 4 and _plain(geometry):
        positions, q, p = delta[0, :, 0].numel(), weight.shape[0], weight.shape[1:].numel()
        # Few positions, many channels.
        if 3 * positions * (p + q) < 2 * p * q:
            term = _patches(delta, x, weight, geometry)
    terms: dict[str, Term] = {"weight": term}
    if bias is not None:
        terms["bias"] = Dense(delta.flatten(3).sum((1, 3)))
    return terms


@register_shifted(convolved_once)
def shifted_convolution(
    x: Tensor,
    weight: SampleParameter | Tensor,
    bias: SampleParameter | Tensor | None,
    geometry: Geometry,
) -> Tensor:
    """C(x_i, W_i) + b_i."""
    samples, k = x.shape[:2]
    if isinstance(weight, Shifted) and isinstance(weight.gradients, Outer):
        z = convolved_once(x.flatten(0, 1), weight.shared, None, geometry).unflatten(0, (-1, k))
        change = weight.correction(_unfolded(x, weight.shared, geometry))
        z = z + change.unflatten(1, (k, -1)).mT.view(z.shape)
    elif isinstance(weight, Shifted):
        z = _ungrouped(
            _PerSampleConvolution.apply(x, weight.shared, weight.written, geometry), samples
        )  # pyright: ignore
    elif isinstance(weight, SampleParameter):
        grouped = replace(geometry, groups=geometry.groups * samples)
        own = weight.tensor().flatten(0, 1)
        z = _ungrouped(convolved_once(_as_groups(x), own, None, grouped), samples)
    else:
        z = convolved_once(x.flatten(0, 1), weight, None, geometry).unflatten(0, (-1, k))
    if bias is None:
        return z
    own = bias.tensor() if isinstance(bias, SampleParameter) else bias.unsqueeze(0)
    return z + own.view(len(own), 1, -1, *(1,) * (z.ndim - 3))


class _PerSampleConvolution(torch.autograd.Function):
    """C(x_i, W_i), (k, B·O, …); the gradient of W is that of one convolution over all samples."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, shared: Tensor, own: Tensor, geometry: Geometry) -> Tensor:
        ctx.save_for_backward(x, shared, own)
        ctx.geometry = geometry
        grouped = replace(geometry, groups=geometry.groups * len(x))
        return torch.convolution(_as_groups(x), own.flatten(0, 1), None, *grouped.arguments())

    @staticmethod
    def backward(ctx: Any, delta: Tensor) -> Any:
        x, shared, own = ctx.saved_tensors
        geometry, samples = ctx.geometry, len(x)
        for_x = for_shared = None
        if ctx.needs_input_grad[0]:
            for_x = _input_gradient(delta, own, x, geometry)
        if ctx.needs_input_grad[1]:
            d = _ungrouped(delta, samples).flatten(0, 1)
            for_shared = WeightGradient.apply(x.flatten(0, 1), d, shared, geometry)
        return for_x, for_shared, None, None


def _input_gradient(delta: Tensor, own: Tensor, x: Tensor, geometry: Geometry) -> Tensor:
    """Of Σℓ in x (B, k, I, …), every sample with its own weights; delta is (k, B·O, …)."""
    samples = len(x)
    if own.ndim == 5 and _plain(geometry) and max(geometry.stride) > 1:
        # oneDNN takes four times as long for grouped convolutions with strides.
        d = _ungrouped(delta, samples).flatten(3)
        patches = own.flatten(2).mT.unsqueeze(1) @ d
        folded = F.fold(
            patches.flatten(0, 1),
            x.shape[3:],
            own.shape[3:],
            geometry.dilation,
            geometry.padding,
            geometry.stride,
        )
        return folded.view(x.shape)
    grouped = replace(geometry, groups=geometry.groups * samples)
    for_x = InputGradient.apply(delta, own.flatten(0, 1), _as_groups(x), grouped)
    return _ungrouped(for_x, samples)  # pyright: ignore


def _ungrouped(tensor: Tensor, samples: int) -> Tensor:
    """The inverse of `_as_groups`: (k, B·C, …) as (B, k, C, …)."""
    return tensor.unflatten(1, (samples, -1)).transpose(0, 1)


def _patches(delta: Tensor, x: Tensor, weight: Tensor, geometry: Geometry) -> Outer:
    """A linear layer on the patches under the kernel at every output position."""
    left = delta.flatten(3).mT.flatten(1, 2)
    return Outer(left, _unfolded(x, weight, geometry), tuple(weight.shape))


def _unfolded(x: Tensor, weight: Tensor, geometry: Geometry) -> Tensor:
    """The patches, (B, k·T, I·kernel)."""
    kernel = tuple(weight.shape[2:])
    patches = F.unfold(
        x.flatten(0, 1), kernel, geometry.dilation, geometry.padding, geometry.stride
    ).unflatten(0, (len(x), -1))
    return patches.mT.flatten(1, 2)
