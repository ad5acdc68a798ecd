"""What stands in the graph behind a tensor."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import BackwardCFunction

OWN = ("f3eo.", "torch._functorch.")
"""Modules whose functions have a backward that is their derivative: this package's, and what
torch.compile makes of whole graphs."""


@dataclass(frozen=True)
class Contents:
    """What a walk through a graph finds.

    Args:
        unit: the coarsest rounding unit of its floating point numbers.
        custom: names of the `torch.autograd.Function`s that are not of `OWN`. Their backward is
            whatever their author wrote, so that differences of gradients need not be products
            with a Hessian: J g in place of Jᵀ g.
    """

    unit: float
    custom: list[str]


def contents(scalar: Tensor) -> Contents:
    """The graph in one walk."""
    found, kinds = {scalar.dtype}, set()
    for node in nodes(scalar):
        found.update(m.dtype for m in node._input_metadata)
        if isinstance(node, BackwardCFunction):
            kinds.add(type(node)._forward_cls)  # pyright: ignore
    custom = sorted(k.__name__ for k in kinds if not k.__module__.startswith(OWN))
    return Contents(coarsest(found), custom)


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


def coarsest(dtypes: set[torch.dtype]) -> float:
    """The largest rounding unit of floating point dtypes."""
    return max(torch.finfo(dtype).eps for dtype in dtypes if dtype.is_floating_point)
