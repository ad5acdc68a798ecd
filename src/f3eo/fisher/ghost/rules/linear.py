"""z = W a + b over any number of positions: G_i = Σ_t δ_t ⊗ a_t."""

import torch
import torch.nn.functional as F
from torch import Tensor

from f3eo.fisher.ghost.registry import register
from f3eo.fisher.ghost.terms import Dense, Outer, Term


def positions(tensor: Tensor) -> Tensor:
    """(B, …, p) as (B, T, p)."""
    return tensor.flatten(1, -2)


@register(F.linear)
def linear(
    delta: Tensor, input: Tensor, weight: Tensor, bias: Tensor | None = None
) -> dict[str, Term]:
    """Weight (q, p) and bias (q,)."""
    delta = positions(delta)
    terms: dict[str, Term] = {"weight": Outer(delta, positions(input))}
    if bias is not None:
        terms["bias"] = Dense(delta.sum(1))
    return terms


@register(torch.matmul, torch.Tensor.matmul, torch.Tensor.__matmul__, torch.mm, torch.Tensor.mm)
def matmul(delta: Tensor, input: Tensor, other: Tensor) -> dict[str, Term] | None:
    """A weight (p, q) on the right of the samples; anything else is left to the fallback."""
    if other.ndim != 2 or input.ndim < 3:
        return None
    return {"other": Outer(positions(input), positions(delta))}


@register(torch.addmm)
def addmm(
    delta: Tensor, input: Tensor, mat1: Tensor, mat2: Tensor, *, beta: float = 1, alpha: float = 1
) -> dict[str, Term] | None:
    """β·input + α·mat1 mat2 with a bias `input` (q,) and a weight `mat2` (p, q)."""
    if input.ndim != 1 or mat2.ndim != 2:
        return None
    delta = positions(delta)
    return {
        "input": Dense(beta * delta.sum(1)),
        "mat2": Outer(alpha * positions(mat1), delta),
    }
