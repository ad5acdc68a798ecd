"""What stands in the graph behind a tensor."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import BackwardCFunction

OWN = ("f3eo.", "torch._functorch.")
"""Modules whose functions have a backward that is their derivative: this package's, and what
torch.compile makes of whole graphs."""

ONCE_ONLY = "torch::autograd::Error"
"""The node that `once_differentiable` puts in place of a second derivative."""


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


def refuse_once_differentiable(values: Sequence[Tensor], gradients: Sequence[Tensor]) -> None:
    """Refuse to differentiate again what goes through `once_differentiable` functions.

    torch raises only where their error is on the way to an input; it is not, and that part of the
    derivative would be missing in silence.

    Args:
        values: whose gradients were taken; custom functions are looked for there.
        gradients: with their graph.

    Raises:
        RuntimeError: one is in the way.
    """
    names = sorted({name for value in values for name in contents(value).custom})
    if names and any(node.name() == ONCE_ONLY for node in nodes(*gradients)):
        raise RuntimeError(
            f"a function that was marked with @once_differentiable has no second derivative (one "
            f"of {', '.join(names)})"
        )


def nodes(*tensors: Tensor) -> Iterator[Any]:
    """Every node of the graph, each once."""
    waiting, seen = [tensor.grad_fn for tensor in tensors], set()
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
