"""Arithmetic on parameter-shaped lists of tensors, the vectors of this package."""

from collections.abc import Sequence

import torch
from torch import Tensor

Vector = list[Tensor] | tuple[Tensor, ...]


def inners(a: Vector, b: Vector) -> list[Tensor]:
    """⟨a_p, b_p⟩ for every tensor p; scalars, in float32 or wider."""
    return [torch.dot(_flat(x), _flat(y)) for x, y in zip(a, b, strict=True)]


def inner(a: Vector, b: Vector) -> Tensor:
    """⟨a, b⟩ over all tensors together; a scalar on the device of the first, 0 for empty lists."""
    products = inners(a, b)
    if not products:
        return torch.zeros(())
    first = products[0]
    return torch.stack([p.to(first) for p in products]).sum()


def squared_norm(a: Vector) -> Tensor:
    """‖a‖² over all tensors together."""
    return inner(a, a)


def scaled(a: Vector, factors: float | Sequence[float]) -> list[Tensor]:
    """factor · a, one factor for all tensors or one for each."""
    return list(torch._foreach_mul(a, factors))  # pyright: ignore[reportPrivateImportUsage]


def multiplied(a: Vector, b: Vector) -> list[Tensor]:
    """a ∘ b, element by element."""
    return list(torch._foreach_mul(a, b))  # pyright: ignore[reportPrivateImportUsage]


def plus(a: Vector, b: Vector, factor: float = 1.0) -> list[Tensor]:
    """a + factor · b."""
    return list(torch._foreach_add(a, b, alpha=factor))  # pyright: ignore[reportPrivateImportUsage]


def filled(gradients: Sequence[Tensor | None], like: Vector) -> list[Tensor]:
    """Gradients with zeros where a parameter received none."""
    return [torch.zeros_like(p) if g is None else g for g, p in zip(gradients, like, strict=True)]


def fetched(scalars: Sequence[Tensor]) -> list[float]:
    """The values of scalar tensors in one synchronisation with their device."""
    if not scalars:
        return []
    first = scalars[0]
    if any(s.dtype != first.dtype or s.device != first.device for s in scalars):
        scalars = [s.to(first.device, torch.float64) for s in scalars]
    return torch.stack(list(scalars)).tolist()


def _flat(tensor: Tensor) -> Tensor:
    """As a vector, in the precision in which sums over a whole model are taken."""
    flat = tensor.reshape(-1)
    return flat.float() if flat.dtype in (torch.float16, torch.bfloat16) else flat
