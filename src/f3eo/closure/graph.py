"""Inspects the autograd graph behind a tensor: dtypes and custom functions."""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import BackwardCFunction

from f3eo.closure.tf32 import tf32_unit

TRUSTED = ("f3eo.", "torch._functorch.", "torch.distributed.fsdp.")
"""Modules whose custom functions have a backward that is their derivative: this package,
torch.compile, and fully_shard, whose function is the identity."""

ONCE_DIFFERENTIABLE = "torch::autograd::Error"
"""Name of the node that `once_differentiable` puts in place of a second derivative."""


@dataclass(frozen=True)
class Contents:
    """Contents of a graph.

    Args:
        unit: the largest rounding unit of its floating point numbers.
        custom: names of its `torch.autograd.Function`s from modules that are not `TRUSTED`. Their
            backward need not be their derivative, so that differences of gradients need not be
            Hessian-vector products.
    """

    unit: float
    custom: list[str]


def contents(scalar: Tensor) -> Contents:
    """Contents of the graph behind a scalar, from one walk through it."""
    dtypes, functions, convolves = {scalar.dtype}, set(), False
    for node in nodes(scalar):
        convolves = convolves or node.name().startswith("Convolution")
        dtypes.update(m.dtype for m in node._input_metadata)
        if isinstance(node, BackwardCFunction):
            functions.add(type(node)._forward_cls)  # pyright: ignore
    custom = sorted(f.__name__ for f in functions if not f.__module__.startswith(TRUSTED))
    return Contents(coarsest_unit(dtypes, scalar.device.type, convolves=convolves), custom)


def refuse_once_differentiable(values: Sequence[Tensor], gradients: Sequence[Tensor]) -> None:
    """Refuse to differentiate again through functions marked with `once_differentiable`.

    torch raises only if the marked function is on the path to an input. Otherwise that part of the
    second derivative is missing without an error.

    Args:
        values: tensors whose gradients were taken; their graphs are searched for custom functions.
        gradients: their gradients, with a graph.

    Raises:
        RuntimeError: the gradients depend on such a function.
    """
    names = sorted({name for value in values for name in contents(value).custom})
    if names and any(node.name() == ONCE_DIFFERENTIABLE for node in nodes(*gradients)):
        raise RuntimeError(
            f"a function marked with @once_differentiable has no second derivative (one of "
            f"{', '.join(names)})"
        )


def nodes(*tensors: Tensor) -> Iterator[Any]:
    """Every node of the graph behind the tensors, each once."""
    return reached([tensor.grad_fn for tensor in tensors])


def reached(starts: Iterable[Any]) -> Iterator[Any]:
    """Every node of a graph from these on, each once; None stands for no node."""
    stack, visited = list(starts), set()
    while stack:
        node = stack.pop()
        if node is None or node in visited:
            continue
        visited.add(node)
        yield node
        stack.extend(input_node for input_node, _ in node.next_functions)


def operation(node: Any) -> str:
    """Name of the operation of a node, without "Backward0"."""
    return re.sub(r"Backward\d*$", "", node.name())


def coarsest_unit(dtypes: set[torch.dtype], device: str, *, convolves: bool) -> float:
    """The largest rounding unit of floating point numbers, products in TF32 included.

    Args:
        dtypes: of the numbers; others are left out.
        device, convolves: see `tf32_unit`.
    """
    unit = max(torch.finfo(dtype).eps for dtype in dtypes if dtype.is_floating_point)
    if torch.float32 in dtypes:
        unit = max(unit, tf32_unit(device, convolves=convolves))
    return unit
