"""A differentiable function whose intermediate values are recomputed for its backward pass.

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
    def forward(
        ctx: Any, function: Function, differentiable: int, count: int, *tensors: Tensor
    ) -> Any:
        ctx.function, ctx.differentiable, ctx.count = function, differentiable, count
        ctx.save_for_backward(*tensors)
        ctx.set_materialize_grads(False)
        results = function(tensors[:count])
        ctx.mark_non_differentiable(*results[differentiable:])
        return results

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *cotangents: Tensor | None) -> Any:
        inputs = ctx.saved_tensors[: ctx.count]
        needed = ctx.needs_input_grad[3:]
        with torch.enable_grad():
            # Detached, so that what the inputs themselves depend on is not counted twice.
            inputs = [t.detach().requires_grad_(n) for t, n in zip(inputs, needed, strict=False)]
            results = ctx.function(inputs)[: ctx.differentiable]
        pairs = [
            (result, cotangent)
            for result, cotangent in zip(results, cotangents, strict=False)
            if cotangent is not None and result.requires_grad
        ]
        tensors = [*inputs, *ctx.saved_tensors[ctx.count :]]
        gradients = iter(
            torch.autograd.grad(
                [result for result, _ in pairs],
                [t for t, n in zip(tensors, needed, strict=True) if n],
                [cotangent for _, cotangent in pairs],
                retain_graph=True,
                allow_unused=True,
            )
            if pairs
            else [None] * sum(needed)
        )
        return None, None, None, *(next(gradients) if n else None for n in needed)


def recomputed(
    function: Function, differentiable: int, inputs: Sequence[Tensor], leaves: Sequence[Tensor]
) -> tuple[Tensor, ...]:
    """function(inputs), keeping only its inputs for the backward pass; differentiable once.

    Args:
        function: returns tensors.
        differentiable: how many of them, from the first, are differentiable in `inputs` and in
            `leaves`; the others are constants.
        inputs: the arguments.
        leaves: the leaf tensors that the function uses besides.
    """
    return _Recomputed.apply(function, differentiable, len(inputs), *inputs, *leaves)  # pyright: ignore
