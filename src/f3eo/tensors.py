"""Arithmetic on parameter-shaped lists of tensors, the vectors of this package."""

from collections.abc import Sequence

import torch
from torch import Tensor

Vector = Sequence[Tensor]


def _accumulate(tensor: Tensor) -> Tensor:
    """Flat view in the precision in which sums over a whole model are taken."""
    low = tensor.dtype in (torch.float16, torch.bfloat16)
    return (tensor.float() if low else tensor).reshape(-1)


def inner(a: Vector, b: Vector, metric: Vector | None = None) -> Tensor:
    """⟨a, D b⟩ over all tensors together, with D the identity or a diagonal metric.

    Args:
        a, b: lists of tensors of equal shapes.
        metric: the diagonal of D in the same shapes; None is the identity.

    Returns:
        A scalar on the device of the first tensor, float32 or wider; 0 for empty lists.
    """
    if metric is not None:
        b = [x * d for x, d in zip(b, metric, strict=True)]
    products = [
        torch.dot(_accumulate(x), _accumulate(y).to(_accumulate(x).dtype))
        for x, y in zip(a, b, strict=True)
    ]
    if not products:
        return torch.zeros(())
    device, dtype = products[0].device, products[0].dtype
    return torch.stack([p.to(device, dtype) for p in products]).sum()


def squared_norm(a: Vector) -> Tensor:
    """‖a‖² over all tensors together."""
    return inner(a, a)


def scaled(a: Vector, factor: Tensor | float) -> list[Tensor]:
    """factor · a, each tensor in its own dtype and on its own device."""
    return [(x * _local(factor, x)).to(x.dtype) for x in a]


def plus(a: Vector, b: Vector, factor: Tensor | float = 1.0) -> list[Tensor]:
    """a + factor · b."""
    return [(x + y * _local(factor, y)).to(x.dtype) for x, y in zip(a, b, strict=True)]


def _local(factor: Tensor | float, like: Tensor) -> Tensor | float:
    return factor.to(like.device) if isinstance(factor, Tensor) else factor


def filled(gradients: Sequence[Tensor | None], like: Vector) -> list[Tensor]:
    """Gradients with zeros where a parameter received none."""
    return [
        torch.zeros_like(p) if g is None else g for g, p in zip(gradients, like, strict=True)
    ]
