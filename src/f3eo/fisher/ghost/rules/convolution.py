"""Convolutions: a linear layer on patches, G_i = Σ_t δ_t ⊗ patch_t at the output positions t."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from f3eo.fisher.ghost.registry import register
from f3eo.fisher.ghost.terms import Dense, Outer, Term

Sizes = int | Sequence[int]


def _pair(sizes: Sizes) -> tuple[int, int]:
    values = (sizes,) if isinstance(sizes, int) else tuple(sizes)
    return (values[0], values[-1])


def _padded(input: Tensor, kernel: Sequence[int], padding: Sizes | str, dilation: Sizes) -> Tensor:
    """The input (…, H, W) with all of the convolution's padding in place."""
    if padding == "valid":
        return input
    if padding == "same":
        total = [d * (k - 1) for d, k in zip(_pair(dilation), kernel, strict=True)]
        (top, left), (height, width) = (t // 2 for t in total), total
        return F.pad(input, (left, width - left, top, height - top))
    vertical, horizontal = _pair(padding)  # pyright: ignore[reportArgumentType]
    return F.pad(input, (horizontal, horizontal, vertical, vertical))


@register(F.conv2d, torch.conv2d)
def conv2d(
    delta: Tensor,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Sizes = 1,
    padding: Sizes | str = 0,
    dilation: Sizes = 1,
    groups: int = 1,
) -> dict[str, Term] | None:
    """Weight (O, I/groups, h, w) and bias (O,)."""
    if delta.ndim != 5:  # (B, k, O, H, W): an unbatched call has no samples to tell apart
        return None
    samples = len(delta)
    kernel = weight.shape[2:]
    padded = _padded(input.flatten(0, 1), kernel, padding, dilation)
    patches = F.unfold(padded, tuple(kernel), dilation=_pair(dilation), stride=_pair(stride))
    # Positions that the convolution does not reach (stride over the border) do not occur in unfold
    # either: both count floor((H − d(k−1) − 1)/s) + 1.
    patches = patches.unflatten(0, (samples, -1)).unflatten(2, (groups, -1))
    deltas = delta.flatten(3).unflatten(2, (groups, -1))
    terms: dict[str, Term] = {}
    if groups == 1:
        terms["weight"] = Outer(
            deltas[:, :, 0].movedim(2, 3).flatten(1, 2),
            patches[:, :, 0].movedim(2, 3).flatten(1, 2),
            tuple(weight.shape),
        )
    else:
        products = torch.einsum("bkgot,bkgpt->bgop", deltas, patches)
        terms["weight"] = Dense(products.reshape(samples, *weight.shape))
    if bias is not None:
        terms["bias"] = Dense(delta.flatten(3).sum((1, 3)))
    return terms


@register(F.conv1d, torch.conv1d)
def conv1d(
    delta: Tensor,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Sizes = 1,
    padding: Sizes | str = 0,
    dilation: Sizes = 1,
    groups: int = 1,
) -> dict[str, Term] | None:
    """Weight (O, I/groups, w) and bias (O,): a conv2d of height one."""
    if delta.ndim != 4:
        return None

    def flat(sizes: Sizes, one: int) -> tuple[int, int]:
        return (one, sizes if isinstance(sizes, int) else sizes[0])

    terms = conv2d(
        delta.unsqueeze(3),
        input.unsqueeze(3),
        weight.unsqueeze(2),
        bias,
        flat(stride, 1),
        padding if isinstance(padding, str) else flat(padding, 0),
        flat(dilation, 1),
        groups,
    )
    assert terms is not None
    term = terms["weight"]
    if isinstance(term, Outer):
        terms["weight"] = Outer(term.left, term.right, tuple(weight.shape))
    elif isinstance(term, Dense):
        terms["weight"] = Dense(term.values.squeeze(3))
    return terms
