"""Arithmetic in which a parameter is broadcast against samples: biases, scales, tokens, tables."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from f3eo.decompositions.normalisation import repeated
from f3eo.fisher.ghost.gradients.terms import Dense, Term
from f3eo.fisher.ghost.registry import register_layer, register_shifted
from f3eo.fisher.ghost.second_pass.shifted import SampleParameter


def unbroadcast(values: Tensor, shape: torch.Size) -> Tensor:
    """(B, *z) summed for each sample to (B, *shape), where `shape` broadcasts to z."""
    extra = tuple(range(1, values.ndim - len(shape)))
    values = values.sum(extra) if extra else values
    ones = [d for d, size in enumerate(shape, 1) if size == 1 and values.shape[d] != 1]
    return values.sum(ones, keepdim=True) if ones else values


def _refuse_samples(shape: torch.Size, delta: Tensor) -> None:
    """A parameter with an entry for every sample of the batch has no gradient of one sample."""
    alone = delta.shape[1:]
    if any(size not in (1, d) for size, d in zip(shape[::-1], alone[::-1], strict=False)):
        raise NotImplementedError(
            f"a parameter of shape {tuple(shape)} is combined with samples of shape "
            f"{tuple(alone)} each: if it has an entry for every sample of the batch, look these up "
            f"by an index (torch.nn.Embedding), or use estimator=Sign()"
        )


def binary(
    function: Callable[..., Tensor], delta: Tensor, input: Any, other: Any, **options: Any
) -> dict[str, Callable[[], Term]]:
    """f(input, other) with a parameter on either side; autograd differentiates f."""

    def term(side: int) -> Term:
        operands = [input, other]
        shape = operands[side].shape
        _refuse_samples(shape, delta)
        with torch.enable_grad():
            operands[side] = operands[side].expand(delta.shape)
            value = function(*operands, **options)
            (values,) = torch.autograd.grad(value, operands[side], delta, create_graph=True)
        return Dense(unbroadcast(values, shape))

    return {"input": partial(term, 0), "other": partial(term, 1)}


def shifted_binary(
    function: Callable[..., Tensor], input: Any, other: Any, **options: Any
) -> Tensor | None:
    """f(x, w_i), w_i broadcast like the parameter."""
    dims = max(t.ndim for t in (input, other) if isinstance(t, Tensor))
    operands = [t.tensor() if isinstance(t, SampleParameter) else t for t in (input, other)]
    for k, given in enumerate((input, other)):
        if isinstance(given, SampleParameter):
            own = operands[k]
            if own.ndim > dims:
                return None
            operands[k] = own.view(len(own), *(1,) * (dims - own.ndim), *own.shape[1:])
    return function(*operands, **options)


for _name in ("add", "sub", "mul", "div", "true_divide"):
    for _owner in (torch, torch.Tensor):
        _function = getattr(_owner, _name)
        register_layer(_function)(partial(binary, _function))
        register_shifted(_function)(partial(shifted_binary, _function))


@register_layer(torch.Tensor.expand, torch.Tensor.expand_as, torch.Tensor.repeat)
@register_layer(torch.Tensor.broadcast_to, torch.broadcast_to, repeated)
def expand(delta: Tensor, input: Tensor, *sizes: Any) -> dict[str, Term]:
    """A parameter repeated for every sample, such as a class token."""
    return {"input": Dense(unbroadcast(delta, input.shape))}
