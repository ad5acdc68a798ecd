"""An operation in which parameters meet samples."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge

from f3eo.arguments import name_of
from f3eo.fisher.ghost.registry import Rule


@dataclass(frozen=True)
class Use:
    """One operation in which parameters meet samples.

    Args:
        operation: the function, out of place, or the class of a module with a rule of its own.
        rule: its registered rule, or None.
        args, kwargs: as it was called.
        sampled: ids of the tensors among them that carry samples.
        parameters: the tensors among them that are, or derive from, parameters.
        outputs, edges, shapes, strides: places, graph nodes, shapes and strides of the outputs that
            need a gradient.
        versions: the tensors among the arguments, and how often each had been written to.
        call: its place among all calls of torch functions in the forward pass.
        order: which sample stands where, (B,), if the samples are in another order; see `Capture`.
    """

    operation: Any
    rule: Rule | None
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    sampled: frozenset[int]
    parameters: list[Tensor]
    outputs: list[int]
    edges: list[GradientEdge]
    shapes: list[torch.Size]
    strides: list[tuple[int, ...]]
    versions: list[tuple[Tensor, int]]
    call: int
    order: Tensor | None

    @property
    def name(self) -> str:
        """The operation's name, for messages."""
        return name_of(self.operation)
