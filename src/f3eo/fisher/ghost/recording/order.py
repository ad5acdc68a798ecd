"""The order of the samples in tensors that a permutation indexes: x[order]."""

from typing import Any

import torch
from torch import Tensor

from f3eo.decompositions.mode import Call

INDEXING = {torch.index_select, torch.Tensor.index_select, torch.Tensor.__getitem__}


def reordered(call: Call, order: Tensor | None, samples: int | None) -> Tensor | None:
    """The order of the samples in the result of an indexing operation.

    Args:
        call: of one of `INDEXING`.
        order: of the indexed tensor, (B,); None is the batch's own.
        samples: B.

    Returns:
        (B,), which sample stands at each place; None in the batch's own order.
    """
    count, index = samples or 0, index_of(call.func, call.args, call.kwargs)
    if count < 2 or index is None or index.shape != (count,) or index.dtype.is_floating_point:
        return order
    straight = torch.arange(count, device=index.device)
    if index.dtype is torch.bool or not torch.equal(index.sort().values, straight):
        return order
    permuted = (index if order is None else order[index]).detach()
    return None if torch.equal(permuted, straight) else permuted


def index_of(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor | None:
    """The one tensor that an operation indexes with along one dimension, or None."""
    if func is torch.Tensor.__getitem__:
        index = args[1] if isinstance(args[1], tuple) else (args[1],)
        tensors = [p for p in index if isinstance(p, Tensor)]
        whole = all(isinstance(p, Tensor) or p == slice(None) for p in index)
        return tensors[0] if len(tensors) == 1 and whole else None
    return kwargs.get("index", args[2] if len(args) > 2 else None)


def takes_one_row(func: Any, args: tuple[Any, ...]) -> bool:
    """Whether the operation is x[i, …] or x[i : i + 1, …]."""
    if func is not torch.Tensor.__getitem__:
        return False
    index = args[1][0] if isinstance(args[1], tuple) and args[1] else args[1]
    if isinstance(index, slice):
        return len(range(*index.indices(len(args[0])))) == 1
    return isinstance(index, int) and not isinstance(index, bool)
