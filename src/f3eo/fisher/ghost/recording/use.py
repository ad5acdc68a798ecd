"""An operation in which parameters meet samples."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge

from f3eo.decompositions.mode import Call, name_of
from f3eo.fisher.ghost.recording.roles import Sources
from f3eo.fisher.ghost.registry import LayerRule


@dataclass(frozen=True)
class Use:
    """One operation in which parameters meet samples.

    Args:
        call: the operation, out of place, with its arguments; for a module with a rule of its own,
            its class.
        number: of the call among all calls of torch functions in the forward pass.
        rule: the registered layer rule, or None.
        sampled: for each of `call.tensors`, whether it carries samples.
        parameters: the tensors that are, or derive from, parameters.
        sources: for each of `parameters`, ids of the leaves it derives from; its own for a leaf.
        outputs: places of the outputs that need a gradient.
        edges, shapes, strides: their graph nodes, shapes and strides.
        versions: every tensor among the arguments with its version at the call.
        order: (B,), which sample stands at each place, if not in the batch's own order.
    """

    call: Call
    number: int
    rule: LayerRule | None
    sampled: list[bool]
    parameters: list[Tensor]
    sources: list[Sources]
    outputs: list[int]
    edges: list[GradientEdge]
    shapes: list[torch.Size]
    strides: list[tuple[int, ...]]
    versions: list[tuple[Tensor, int]]
    order: Tensor | None

    @property
    def name(self) -> str:
        """The operation's name, for messages."""
        return name_of(self.call.func)
