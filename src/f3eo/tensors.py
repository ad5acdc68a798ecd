"""Arithmetic on vectors that are lists of tensors, one a parameter."""

from collections.abc import Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

Vector = list[Tensor] | tuple[Tensor, ...]
N = TypeVar("N", Tensor, Tensor | None)

ROUNDING = 8
"""Bound on the rounding of a sum over samples, in rounding units of its terms (4 was measured)."""


def inners(a: Vector, b: Vector) -> list[Tensor]:
    """⟨a_p, b_p⟩ for each parameter p; scalars in float32 or wider.

    Tensors that are sharded over processes (DTensors) count whole, with one sum over all of them.
    """
    if is_sharded(a):
        return over_shards(inners([*map(own_part, a)], [*map(own_part, b)]), a[0])
    return [torch.dot(_flat(x), _flat(y)) for x, y in zip(a, b, strict=True)]


def squares(a: Vector) -> list[Tensor]:
    """‖a_p‖² for each parameter p, as `inners(a, a)` but in fewer kernels."""
    return list(torch._foreach_mul(n, n)) if (n := norms(a)) else []  # pyright: ignore


def norms(a: Vector) -> list[Tensor]:
    """‖a_p‖ for each parameter p; scalars in float32 or wider."""
    if not a:
        return []
    if is_sharded(a):
        return list(stacked(inners(a, a)).sqrt())
    return list(torch._foreach_norm([wide(x) for x in a]))  # pyright: ignore


def inner(a: Vector, b: Vector) -> Tensor:
    """⟨a, b⟩, a scalar on the device of the first tensor; 0 for empty lists."""
    return _sum(inners(a, b))


def squared_norm(a: Vector) -> Tensor:
    """‖a‖², as `inner(a, a)` but in fewer kernels."""
    return _sum(squares(a))


def scaled(a: Vector, factors: float | Sequence[float]) -> list[Tensor]:
    """factor · a, with one factor for all parameters or one for each."""
    return list(torch._foreach_mul(a, factors))  # pyright: ignore[reportPrivateImportUsage]


def multiplied(a: Vector, b: Vector) -> list[Tensor]:
    """a ∘ b, element by element."""
    return list(torch._foreach_mul(a, b))  # pyright: ignore[reportPrivateImportUsage]


def plus(a: Vector, b: Vector, factor: float = 1.0) -> list[Tensor]:
    """a + factor · b."""
    return list(torch._foreach_add(a, b, alpha=factor))  # pyright: ignore[reportPrivateImportUsage]


def mixed(a: Vector, b: Vector, share: float) -> list[Tensor]:
    """(1 − share) a + share b, tensor by tensor."""
    return list(torch._foreach_lerp(a, b, share))  # pyright: ignore[reportPrivateImportUsage]


def add_to(a: Vector, b: Vector, factor: float = 1.0) -> None:
    """a ← a + factor · b, in the memory of a, which nothing else may use."""
    torch._foreach_add_(a, b, alpha=factor)  # pyright: ignore[reportPrivateImportUsage]


def over(a: Sequence[N], divisor: float | Tensor) -> list[N]:
    """a / divisor, computed in float32 or wider, in the types of a; None stays."""
    return [None if x is None else (wide(x) / divisor).to(x.dtype) for x in a]  # pyright: ignore


def filled(gradients: Sequence[Tensor | None], like: Vector) -> list[Tensor]:
    """Gradients with None replaced by zeros in the shape of the parameter in `like`."""
    return [torch.zeros_like(p) if g is None else g for g, p in zip(gradients, like, strict=True)]


def fetched(scalars: Sequence[Tensor]) -> list[float]:
    """Values of scalar tensors, read with one synchronisation of their device."""
    return [scalars[0].item()] if len(scalars) == 1 else stacked(scalars).tolist()


def stacked(scalars: Sequence[Tensor]) -> Tensor:
    """Scalars as one tensor, on the device of the first; in float64 where their types differ."""
    if not scalars:
        return torch.zeros(0)
    first = scalars[0]
    if any([s.dtype != first.dtype or s.device != first.device for s in scalars]):
        scalars = [s.to(first.device, torch.float64) for s in scalars]
    return torch.stack(list(scalars))


def _sum(scalars: Sequence[Tensor]) -> Tensor:
    if not scalars:
        return torch.zeros(())
    return torch.stack([s.to(scalars[0]) for s in scalars]).sum()


def is_sharded(a: Vector) -> bool:
    """Whether the tensors are DTensors, each process with a part of its own."""
    # By attribute: to import torch.distributed.tensor takes longer than all else here.
    return bool(a) and hasattr(a[0], "device_mesh")


def own_part(tensor: Tensor) -> Tensor:
    """The part of this process of a DTensor; any other tensor itself."""
    if not is_sharded([tensor]):
        return tensor
    return tensor.to_local()  # pyright: ignore[reportAttributeAccessIssue]


def over_shards(scalars: Sequence[Tensor], like: Any, *, largest: bool = False) -> list[Tensor]:
    """Sums over the processes that share a DTensor; copies of a part count once.

    Args:
        scalars: of the part of this process.
        like: the DTensor.
        largest: whether the largest is taken in place of the sum.
    """
    operations, total = torch.distributed.ReduceOp, stacked(scalars)
    operation = operations.MAX if largest else operations.SUM
    for dimension, placement in enumerate(like.placements):
        if placement.is_shard():
            group = like.device_mesh.get_group(dimension)
            torch.distributed.all_reduce(total, operation, group=group)
    return list(total)


def _flat(tensor: Tensor) -> Tensor:
    return wide(tensor if tensor.ndim == 1 else tensor.flatten())


WIDE = {torch.float16: torch.float32, torch.bfloat16: torch.float32}
"""The type in which sums over a whole model are taken, where it is not that of the tensors."""


def wide(tensor: Tensor) -> Tensor:
    """The tensor in the type for sums over a whole model."""
    dtype = WIDE.get(tensor.dtype)
    return tensor if dtype is None else tensor.to(dtype)


def above_rounding(
    product: list[Tensor], rounding: Tensor | float, *, read: bool = False
) -> list[Tensor]:
    """The product, or zeros if its norm is within what sums in another order differ by.

    Args:
        product: a difference of gradients over its width.
        rounding: the rounding unit times the norm of the terms, over the same width.
        read: whether the comparison may be read, which saves a pass over the product; default no,
            as in a recording, which has no values.
    """
    noise = squared_norm(product).sqrt() <= ROUNDING * rounding
    if read:
        return [torch.zeros_like(p) for p in product] if noise else product
    return [torch.where(noise, 0, p) for p in product]
