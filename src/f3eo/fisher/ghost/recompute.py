"""A differentiable function whose intermediate values are computed again for its backward pass.

`torch.utils.checkpoint` would serve, but its saved-tensor hooks exclude torch.func transforms.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


class _Recomputed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, function: Callable[[], tuple[Tensor, ...]], *inputs: Tensor) -> Any:
        ctx.function = function
        ctx.save_for_backward(*inputs)
        result = function()
        ctx.mark_non_differentiable(*result[1:])
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, cotangent: Tensor, *_: Tensor) -> Any:
        with torch.enable_grad():
            value = ctx.function()[0]
        gradients = torch.autograd.grad(
            value, ctx.saved_tensors, cotangent, retain_graph=True, allow_unused=True
        )
        return None, *gradients


def recomputed(
    function: Callable[[], tuple[Tensor, ...]], inputs: Sequence[Tensor]
) -> tuple[Tensor, ...]:
    """function(), keeping only `inputs` for the backward pass; once differentiable.

    Args:
        function: returns tensors, of which the first is differentiable in `inputs` alone.
        inputs: the tensors with a graph that it uses.
    """
    needed = {id(t): t for t in inputs if t.requires_grad}
    return _Recomputed.apply(function, *needed.values())  # pyright: ignore[reportReturnType]
