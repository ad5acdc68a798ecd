"""What an operation that indexes takes."""

from typing import Any

import torch
from torch import Tensor

INDEXING = {torch.index_select, torch.Tensor.index_select, torch.Tensor.__getitem__}


def index_of(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor | None:
    """The one tensor that an operation indexes with, if it does so along one dimension."""
    if func is torch.Tensor.__getitem__:
        place = args[1] if isinstance(args[1], tuple) else (args[1],)
        found = [p for p in place if isinstance(p, Tensor)]
        whole = all(isinstance(p, Tensor) or p == slice(None) for p in place)
        return found[0] if len(found) == 1 and whole else None
    return kwargs.get("index", args[2] if len(args) > 2 else None)


def takes_one_row(func: Any, args: tuple[Any, ...]) -> bool:
    """Whether x[i, …] or x[i : i + 1, …] is taken."""
    if func is not torch.Tensor.__getitem__:
        return False
    place = args[1][0] if isinstance(args[1], tuple) and args[1] else args[1]
    if isinstance(place, slice):
        return len(range(*place.indices(len(args[0])))) == 1
    return isinstance(place, int) and not isinstance(place, bool)
