"""Detects the kind of per-sample losses from the last operations of their graph."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from f3eo.closure.graph import operation

MAX_NODES = 200
"""Largest number of graph nodes that are read."""

LINEAR = re.compile(
    "Add|Alias|AsStrided|Cat|Clone|Div|Expand|Gather|Index|IndexSelect|MaskedFill|Mean|Mul|Neg|"
    "Permute|Reshape|ReshapeAlias|Rsub|Select|Slice|Split|Squeeze|Stack|Sub|Sum|T|ToCopy|Transpose|"
    "Unbind|UnsafeView|Unsqueeze|View|Where"
)
"""Operations of sums, means, masks, views and constant factors."""

NATS = re.compile(
    "BinaryCrossEntropy|BinaryCrossEntropyWithLogits|CtcLoss|CudnnCtcLoss|KlDiv|LogSigmoid|"
    "LogSoftmax|Logsumexp|NllLoss|NllLoss2D|SoftMarginLoss|Softplus"
)
"""Losses that are logarithms of probabilities, in nats."""

LOGARITHMS = frozenset(("Log", "Log1P"))
LABELLED = frozenset(("NllLoss", "NllLoss2D"))
SQUARE, FACTORS, SHIFTED = "Pow", "Factors", "a constant is added"

NOT_NATS = {
    "MseLoss": "squared errors",
    SQUARE: "squared errors",
    "L1Loss": "absolute errors",
    "Abs": "absolute errors",
    "SmoothL1Loss": "smooth absolute errors",
    "HuberLoss": "Huber losses",
    "MultiMarginLoss": "margin losses",
    "MultilabelMarginLoss": "margin losses",
    "ClampMin": "hinge or margin losses",
    "Clamp": "hinge or margin losses",
    "Relu": "hinge or margin losses",
    "LinalgVectorNorm": "norms",
    "Norm": "norms",
}
"""Losses in other units than nats, and their name in messages."""

CLASS_WEIGHTS = "cross-entropies with class weights"
PRODUCT = "a loss times a factor that has a gradient, as in focal losses"


@dataclass(frozen=True)
class LossKind:
    """The kind of per-sample losses.

    Args:
        nats: a term is the logarithm of a probability.
        density: a term is a plain logarithm, or a square or logarithm plus a constant. Such losses
            are logarithms of densities, in nats, and may be negative.
        other: name of a loss that is not in nats; None if there is none, or a term is in nats.
        ignored: number of ignored labels whose loss of 0 counts in the mean.
    """

    nats: bool = False
    density: bool = False
    other: str | None = None
    ignored: int = 0


def read_loss_kind(losses: Tensor) -> LossKind:
    """Detect the kind of per-sample losses.

    The graph is read from its end back to the first operations that are not sums, means, masks,
    views or constant factors, at most `MAX_NODES` nodes.

    Args:
        losses: shape (B,), with a graph that is not yet freed.
    """
    leaves = list(_leaves(losses.grad_fn, (), [MAX_NODES]))
    names = {leaf.name for leaf in leaves}
    nats = any(map(NATS.fullmatch, names))
    density = not names.isdisjoint(LOGARITHMS) or any(
        SHIFTED in leaf.path and (leaf.name == SQUARE or NATS.fullmatch(leaf.name))
        for leaf in leaves
    )
    labelled = [leaf for leaf in leaves if leaf.name in LABELLED]
    other = next((NOT_NATS[leaf.name] for leaf in leaves if leaf.name in NOT_NATS), None)
    if nats or density:
        other = None
    if any(leaf.node._saved_weight is not None for leaf in labelled):
        other = CLASS_WEIGHTS
    if FACTORS in names:
        other = PRODUCT
    return LossKind(nats, density, other, sum(map(_ignored, labelled)))


@dataclass(frozen=True)
class _Leaf:
    """The first operation that is not linear, on one path back from the losses.

    Args:
        name: the operation.
        node: its node in the graph.
        path: divisors between it and the losses, and SHIFTED if a constant is added there.
    """

    name: str
    node: Any
    path: tuple[Any, ...]


def _leaves(node: Any, path: tuple[Any, ...], budget: list[int]) -> Iterator[_Leaf]:
    budget[0] -= 1  # shared by all branches
    if budget[0] < 0 or node is None:
        return
    name = operation(node)
    inputs = [n for n, _ in node.next_functions if n is not None]
    if name == "Mul" and len(inputs) > 1:
        if inputs[0] is inputs[1]:
            yield _Leaf(SQUARE, node, path)
            return
        inner = [leaf for n in inputs for leaf in _leaves(n, (), budget)]
        if any(NATS.fullmatch(leaf.name) for leaf in inner):
            yield _Leaf(FACTORS, node, path)
        return
    if not LINEAR.fullmatch(name) or (name == "Div" and len(inputs) > 1):
        yield _Leaf(name, node, path)
        return
    if name in ("Add", "Sub", "Rsub") and len(inputs) == 1:
        path = (*path, SHIFTED)
    if name == "Div":
        path = (*path, node._saved_other)
    for n in inputs:
        yield from _leaves(n, path, budget)


def _ignored(leaf: _Leaf) -> int:
    """Number of ignored labels; 0 if the losses are divided by the number of the others."""
    if leaf.node._saved_reduction != 0:
        return 0
    ignored = leaf.node._saved_target == leaf.node._saved_ignore_index
    count = int(ignored.sum())
    kept = max(ignored.numel() - count, 1)
    divisors = [d for d in leaf.path if isinstance(d, Tensor)]
    return 0 if any(d.ndim or float(d) == kept for d in divisors) else count


AFTER = re.compile("Add|Mean|Reshape|ReshapeAlias|Squeeze|Sum|ToCopy|UnsafeView|View")
"""What may follow a division of the losses by a number."""


def read_divisor(losses: Tensor) -> float:
    """The number that the losses are divided by at their end; 1 where there is none.

    Args:
        losses: shape (B,), with a graph that is not yet freed.
    """
    node = losses.grad_fn
    for _ in range(8):
        if node is None:
            break
        name = operation(node)
        inputs = [n for n, _ in node.next_functions if n is not None]
        if name in ("Div", "Mul") and len(inputs) == 1:
            other: Any = node._saved_other  # pyright: ignore[reportAttributeAccessIssue]
            if other is not None and other.ndim == 0 and other.device.type == "cpu" and other != 0:
                return float(other) if name == "Div" else 1 / float(other)
        if len(inputs) != 1 or not (AFTER.fullmatch(name) or name in ("Div", "Mul")):
            break
        node = inputs[0]
    return 1.0
