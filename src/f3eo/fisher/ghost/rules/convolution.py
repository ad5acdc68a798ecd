"""Convolutions of any kind: G_i is the weight gradient of each sample alone.

All samples at once are one grouped convolution, a group a sample, at the cost of the plain weight
gradient; both of its derivatives are grouped convolutions again. Where the image is small and the
channels are many, the Gram form on patches is cheaper.
"""

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from f3eo.decompositions.convolution import Geometry, WeightGradient, convolved
from f3eo.fisher.ghost.registry import register
from f3eo.fisher.ghost.terms import Dense, Outer, Term, rows_of


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
        rows = WeightGradient.apply(_beside(input), _beside(delta), like, geometry)
        return rows.view(samples, *self.shape)  # pyright: ignore[reportOptionalMemberAccess]

    def total(self) -> Tensor:
        """See `Term.total`."""
        return self.rows(slice(0, len(self.input))).sum(0)

    def closed(self) -> bool:
        """See `Term.closed`: the norms come from the gradients written out."""
        return False

    def squared_norms(self) -> Tensor:
        """See `Term.squared_norms`."""
        return rows_of(self.rows(slice(0, len(self.input)))).square().sum(1)


def _beside(tensor: Tensor) -> Tensor:
    """(B, k, C, …) as (k, B·C, …): the samples as groups of channels of k common images."""
    return tensor.transpose(0, 1).flatten(1, 2)


@register(convolved)
def convolution(
    delta: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry
) -> dict[str, Term]:
    """Weight and bias (O,); x and delta are (B, k, C, …)."""
    x = x.to(delta.dtype)
    term: Term = Convolved(x, delta, weight.shape, geometry)
    if weight.ndim == 4 and geometry.groups == 1 and not geometry.transposed:
        positions, q, p = delta[0, :, 0].numel(), weight.shape[0], weight[0].numel()
        # Few positions, many channels.
        if 3 * positions * (p + q) < 2 * p * q:
            term = _patches(delta, x, weight, geometry)
    terms: dict[str, Term] = {"weight": term}
    if bias is not None:
        terms["bias"] = Dense(delta.flatten(3).sum((1, 3)))
    return terms


def _patches(delta: Tensor, x: Tensor, weight: Tensor, geometry: Geometry) -> Outer:
    """A linear layer on the patches under the kernel at every output position."""
    kernel = tuple(weight.shape[2:])
    patches = F.unfold(
        x.flatten(0, 1), kernel, geometry.dilation, geometry.padding, geometry.stride
    ).unflatten(0, (len(delta), -1))
    left, right = delta.flatten(3).mT.flatten(1, 2), patches.mT.flatten(1, 2)
    return Outer(left, right, tuple(weight.shape))
