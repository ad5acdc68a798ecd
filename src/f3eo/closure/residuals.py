"""Residuals r = ∂ℓ/∂f, and where f, the outputs that the losses take, stands in the graph.

With residuals held, a sample's gradient is J_iᵀ r_i with r_i a constant, J_i the Jacobian of f_i.
Its derivative is Σ_c r_ic ∇²f_ic, the curvature of the outputs, without the Gauss-Newton part
J_iᵀ (∂²ℓ_i/∂f²) J_i.
"""

import re
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge

from f3eo.closure.graph import operation, reached
from f3eo.closure.loss_kind import LINEAR, MAX_NODES, NATS

LOSSES = re.compile(f"{NATS.pattern}|HuberLoss|L1Loss|Log|LogSigmoid|MseLoss|Pow|SmoothL1Loss")
"""The last operation of a loss, but for sums, means, masks, views and constant factors."""

INNER = re.compile("Log|LogSigmoid|LogSoftmax|Sigmoid|Softmax")
"""Operations between outputs and the last operation of a loss."""

Edge = tuple[Any, int]
"""A node of the graph and the number of its output."""


def outputs_of(losses: Tensor) -> list[GradientEdge] | None:
    """Edges of f, through which the losses depend on the parameters.

    Args:
        losses: (B,), with their graph.

    Returns:
        None where it is not known what f is: the losses depend on parameters by another way than
        through losses of `LOSSES` (a focal loss has two factors; a penalty on parameters), or one
        loss takes what another one's outputs are computed from (an auxiliary classifier).
    """
    found: dict[Edge, None] = {}
    waiting, visited = deque([(losses.grad_fn, 0)]), set[Edge]()
    while waiting:  # breadth first: losses are met before what stands behind their outputs
        edge = waiting.popleft()
        if edge in visited or edge in found:
            continue
        visited.add(edge)
        inputs = _inputs(edge)
        if _is_loss(edge, inputs):
            found |= dict.fromkeys([_output(e) for e in inputs])
        elif not _is_linear(edge, inputs) or len(visited) > MAX_NODES:
            return None
        else:
            waiting.extend(inputs)
    leaf = any(not _inputs(edge) for edge in found)
    return None if leaf or _nested(found) else [GradientEdge(n, k) for n, k in found]


def residuals(
    losses: Tensor, outputs: Sequence[GradientEdge], cotangent: Tensor | None = None
) -> list[Tensor]:
    """Σ_i c_i ∂ℓ_i/∂f at every edge, detached; the graph is kept.

    Args:
        losses: (B,), or one of them.
        outputs: edges of f.
        cotangent: c; default ones.
    """
    total = losses.sum() if cotangent is None else (losses * cotangent).sum()
    return [r.detach() for r in torch.autograd.grad(total, outputs, retain_graph=True)]


def _nested(edges: Iterable[Edge]) -> bool:
    """Whether one edge stands behind another."""
    starts = {node for node, _ in edges}
    if len(starts) < 2:
        return False
    behind = reached(n for start in starts for n, _ in start.next_functions)
    return any(node in starts for node in behind)


def _output(edge: Edge) -> Edge:
    """The edge itself, or what stands behind inner operations on the way to it."""
    inner = edge
    while len(inputs := _inputs(inner)) == 1 and _is_linear(inner, inputs):
        inner = inputs[0]
    return _output(inputs[0]) if INNER.fullmatch(operation(inner[0])) and inputs else edge


def _is_loss(edge: Edge, inputs: Sequence[Edge]) -> bool:
    square = operation(edge[0]) == "Mul" and len(inputs) == 2 and inputs[0] == inputs[1]
    return square or LOSSES.fullmatch(operation(edge[0])) is not None


def _is_linear(edge: Edge, inputs: Sequence[Edge]) -> bool:
    """Whether the operation is linear in all that has a gradient; no product of two such."""
    product = operation(edge[0]) in ("Mul", "Div") and len(inputs) > 1
    return LINEAR.fullmatch(operation(edge[0])) is not None and not product


def _inputs(edge: Edge) -> list[Edge]:
    return [(node, number) for node, number in edge[0].next_functions if node is not None]
