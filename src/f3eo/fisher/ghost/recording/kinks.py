"""Piecewise linear operations on the piece of the first pass: y = f(x₁) + f'(x₁)(x − x₁).

Their second derivative is zero wherever it exists. A difference of gradients across a kink is not
zero, and does not shrink with the step; a network of ReLUs crosses many kinks. So the second pass
freezes every such operation on the piece of the first.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import jvp

RELU = {F.relu, F.relu_, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_}

KINKED: set[Any] = {
    *RELU,
    F.leaky_relu,
    F.relu6,
    F.hardtanh,
    F.hardshrink,
    F.softshrink,
    F.threshold,
    F.l1_loss,
    F.max_pool1d,
    F.max_pool2d,
    F.max_pool3d,
    F.adaptive_max_pool1d,
    F.adaptive_max_pool2d,
    F.adaptive_max_pool3d,
    torch.abs,
    torch.amax,
    torch.amin,
    torch.clamp,
    torch.clamp_max,
    torch.clamp_min,
    Tensor.abs,
    Tensor.amax,
    Tensor.amin,
    Tensor.clamp,
    Tensor.clamp_max,
    Tensor.clamp_min,
}
"""Piecewise linear operations; the kinks are in the first argument."""

UNFROZEN: set[Any] = {
    F.hardswish,
    F.hardtanh_,
    F.leaky_relu_,
    F.rrelu,
    F.selu,
    F.threshold_,  # pyright: ignore[reportAttributeAccessIssue]
    torch.max,
    torch.maximum,
    torch.min,
    torch.minimum,
    torch.sort,
    torch.topk,
    Tensor.max,
    Tensor.maximum,
    Tensor.min,
    Tensor.minimum,
    Tensor.sort,
    Tensor.topk,
}
"""Operations with kinks that are not piecewise linear, or whose piece cannot be frozen."""


class Kink(NamedTuple):
    """Piece on which a piecewise linear operation was.

    Args:
        first: its argument in the first pass, or its result; see `piece_of`.
        version: of `first` at the call.
    """

    first: Tensor
    version: int


def piece_of(function: Any, x: Tensor, result: Tensor) -> Tensor:
    """The tensor that tells the piece: the argument x₁, or the result of a ReLU."""
    return (result if function in RELU else x).detach()


def on_piece(
    function: Callable[..., Tensor], first: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Tensor:
    """The operation on the piece of the first pass.

    Args:
        function: one of `KINKED`.
        first: its `piece_of`.
        args, kwargs: of the call in the second pass.
    """
    if not args:
        args, kwargs = (kwargs["input"],), {k: v for k, v in kwargs.items() if k != "input"}
    x = args[0]
    if function in RELU:
        y = torch.ops.aten.threshold_backward(x, first, 0)
        in_place = kwargs.get("inplace") or function.__name__.endswith("_") or args[1:] == (True,)
        return x.copy_(y) if in_place else y
    value, change = jvp(lambda v: function(v, *args[1:], **kwargs), (first,), (x - first,))[:2]
    return value + change
