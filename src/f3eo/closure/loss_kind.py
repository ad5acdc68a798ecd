"""What per-sample losses are, read from the end of their graph."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor

NODES = 200
"""Nodes that are looked at, at most."""

LINEAR = re.compile(
    "Add|Alias|AsStrided|Cat|Clone|Div|Expand|Gather|Index|IndexSelect|MaskedFill|Mean|Mul|Neg|"
    "Permute|Reshape|ReshapeAlias|Rsub|Select|Slice|Split|Squeeze|Stack|Sub|Sum|T|ToCopy|Transpose|"
    "Unbind|UnsafeView|Unsqueeze|View|Where"
)
"""Operations that sums, means, masks and constant factors are made of."""

NATS = re.compile(
    "BinaryCrossEntropy|BinaryCrossEntropyWithLogits|CtcLoss|CudnnCtcLoss|KlDiv|LogSigmoid|"
    "LogSoftmax|Logsumexp|NllLoss|NllLoss2D|SoftMarginLoss|Softplus"
)
"""Logarithms of probabilities."""

LOGARITHMS = frozenset(("Log", "Log1P"))
LABELLED = frozenset(("NllLoss", "NllLoss2D"))
SQUARE, FACTORS, SHIFTED = "Pow", "Factors", "a constant is added"

OTHER = {
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
"""In other units."""

CLASS_WEIGHTS = "cross-entropies with class weights"
PRODUCT = "a loss times something that has a gradient, as focal losses are"


@dataclass(frozen=True)
class LossKind:
    """What losses end in.

    Args:
        nats: logarithms of probabilities are among the terms.
        density: a logarithm by itself, or a square or logarithm with a constant added, is among the
            terms: such losses are in nats, too, and may be negative.
        other: in words, what is not in nats; None where nothing of the kind was found, or beside a
            term in nats.
        ignored: labels that are ignored, so that their losses of 0 count in the mean.
    """

    nats: bool = False
    density: bool = False
    other: str | None = None
    ignored: int = 0


def read_loss_kind(losses: Tensor) -> LossKind:
    """Read the graph of per-sample losses, before it is freed.

    Only the operations next to its end are read, through sums, means, views and constant factors.
    """
    found = list(_leaves(losses.grad_fn, (), [NODES]))
    names = {leaf.name for leaf in found}
    nats = any(map(NATS.fullmatch, names))
    density = not names.isdisjoint(LOGARITHMS) or any(
        SHIFTED in leaf.path and (leaf.name == SQUARE or NATS.fullmatch(leaf.name))
        for leaf in found
    )
    labelled = [leaf for leaf in found if leaf.name in LABELLED]
    other = next((OTHER[leaf.name] for leaf in found if leaf.name in OTHER), None)
    if nats or density:
        other = None
    if any(leaf.node._saved_weight is not None for leaf in labelled):
        other = CLASS_WEIGHTS
    if FACTORS in names:
        other = PRODUCT
    return LossKind(nats, density, other, sum(map(_ignored, labelled)))


@dataclass(frozen=True)
class _Leaf:
    """Where the linear operations begin.

    Args:
        name: of the operation.
        node: of the graph.
        path: from the end, divisors and whether a constant was added.
    """

    name: str
    node: Any
    path: tuple[Any, ...]


def _leaves(node: Any, path: tuple[Any, ...], left: list[int]) -> Iterator[_Leaf]:
    left[0] -= 1
    if left[0] < 0 or node is None:
        return
    name = re.sub(r"Backward\d*$", "", node.name())
    following = [n for n, _ in node.next_functions if n is not None]
    if name == "Mul" and len(following) > 1:
        if following[0] is following[1]:
            yield _Leaf(SQUARE, node, path)
            return
        inner = [leaf for n in following for leaf in _leaves(n, (), left)]
        if any(NATS.fullmatch(leaf.name) for leaf in inner):
            yield _Leaf(FACTORS, node, path)
        return
    if not LINEAR.fullmatch(name) or (name == "Div" and len(following) > 1):
        yield _Leaf(name, node, path)
        return
    if name in ("Add", "Sub", "Rsub") and len(following) == 1:
        path = (*path, SHIFTED)
    if name == "Div":
        path = (*path, node._saved_other)
    for n in following:
        yield from _leaves(n, path, left)


def _ignored(leaf: _Leaf) -> int:
    """Ignored labels of losses that are not divided by the number of those kept."""
    if leaf.node._saved_reduction != 0:
        return 0
    ignored = leaf.node._saved_target == leaf.node._saved_ignore_index
    count = int(ignored.sum())
    kept = max(ignored.numel() - count, 1)
    divisors = [d for d in leaf.path if isinstance(d, Tensor)]
    return 0 if any(d.ndim or float(d) == kept for d in divisors) else count
