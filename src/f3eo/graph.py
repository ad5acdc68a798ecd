"""What stands in the graph behind a tensor."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import BackwardCFunction


def nodes(tensor: Tensor) -> Iterator[Any]:
    """Every node of the graph, each once."""
    waiting, seen = [tensor.grad_fn], set()
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        yield node
        waiting.extend(following for following, _ in node.next_functions)


def rounding_unit(scalar: Tensor) -> float:
    """The coarsest rounding unit of the floating point numbers in the graph."""
    found = {scalar.dtype}
    for node in nodes(scalar):
        found.update(m.dtype for m in node._input_metadata)
    return coarsest(found)


def coarsest(dtypes: set[torch.dtype]) -> float:
    """The largest rounding unit of floating point dtypes."""
    return max(torch.finfo(dtype).eps for dtype in dtypes if dtype.is_floating_point)


def custom_functions(tensor: Tensor) -> list[str]:
    """Names of the `torch.autograd.Function`s in the graph that are not this package's.

    Their backward is whatever their author wrote, so that differences of gradients need not be
    products with a Hessian: J g in place of Jᵀ g.
    """
    kinds = {type(n)._forward_cls for n in nodes(tensor) if isinstance(n, BackwardCFunction)}  # pyright: ignore
    return sorted(k.__name__ for k in kinds if not k.__module__.startswith("f3eo."))
