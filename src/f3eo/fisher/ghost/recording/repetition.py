"""Operations that repeat a constant or a parameter once for every sample: tokens, initial states.

The shapes alone tell. What is repeated as often for another reason is refused by its layout.
"""

from typing import Any

import torch
from torch import Tensor

from f3eo.decompositions.normalisation import repeated

EXPANSIONS = {
    repeated,
    torch.Tensor.expand,
    torch.Tensor.expand_as,
    torch.Tensor.repeat,
    torch.Tensor.broadcast_to,
    torch.broadcast_to,
}
"""Operations that may repeat their first argument."""

COPIES = {torch.Tensor.to, torch.Tensor.contiguous, torch.Tensor.clone, torch.Tensor.long}
"""Operations whose result is repeated where their first argument is."""

FILLS = {torch.zeros, torch.ones, torch.full, torch.empty, torch.rand, torch.randn}
"""Operations that make a constant or noise from a shape."""


def fills(result: Tensor, samples: int | None) -> bool:
    """Whether the result of one of `FILLS` has a row for every sample."""
    return (samples or 0) > 1 and result.shape[:1] == (samples,)


def expands(func: Any, before: Tensor, after: Tensor, samples: int | None) -> bool:
    """Whether one of `EXPANSIONS` repeated `before` for every sample."""
    if func is repeated:
        return True
    count = samples or 0
    if count < 2:
        return False
    shape = (1,) * (after.ndim - before.ndim) + tuple(before.shape)
    sizes = list(zip(shape, after.shape, strict=True))
    # k rows become B·k where samples are folded with heads.
    grown = any(a == b * count for b, a in sizes)
    return grown and all(a == b * count or b in (1, a) for b, a in sizes)


def grows_first(before: Tensor, after: Tensor, samples: int | None) -> bool:
    """Whether dimension 0 grew from one row to B, and no other dimension changed."""
    rest = after.shape[1:]
    return after.shape[0] == samples and before.shape in (rest, (1, *rest))
