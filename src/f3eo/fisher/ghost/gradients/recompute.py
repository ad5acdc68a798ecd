"""A differentiable function whose intermediate values are computed again for its backward pass.

`torch.utils.checkpoint` would serve, but its saved-tensor hooks exclude torch.func transforms.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

Function = Callable[[Sequence[Tensor]], tuple[Tensor, ...]]


class _Recomputed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, function: Function, count: int, *tensors: Tensor) -> Any:
        ctx.function, ctx.count = function, count
        ctx.save_for_backward(*tensors)
        result = function(tensors[:count])
        ctx.mark_non_differentiable(*result[1:])
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, cotangent: Tensor, *_: Tensor) -> Any:
        inputs = ctx.saved_tensors[: ctx.count]
        needed = ctx.needs_input_grad[2:]
        with torch.enable_grad():
            # Detached, so that what the inputs themselves depend on is not counted here as well.
            inputs = [t.detach().requires_grad_(n) for t, n in zip(inputs, needed, strict=False)]
            value = ctx.function(inputs)[0]
        tensors = [*inputs, *ctx.saved_tensors[ctx.count :]]
        wanted = [t for t, n in zip(tensors, needed, strict=True) if n]
        gradients = iter(
            torch.autograd.grad(value, wanted, cotangent, retain_graph=True, allow_unused=True)
        )
        return None, None, *(next(gradients) if n else None for n in needed)


def recomputed(
    function: Function, inputs: Sequence[Tensor], leaves: Sequence[Tensor]
) -> tuple[Tensor, ...]:
    """function(inputs), keeping only its inputs for the backward pass; once differentiable.

    Args:
        function: returns tensors, of which the first is differentiable in `inputs` and in `leaves`.
        inputs: what it is called with.
        leaves: the leaf tensors that it uses besides.
    """
    return _Recomputed.apply(function, len(inputs), *inputs, *leaves)  # pyright: ignore
