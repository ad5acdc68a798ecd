"""Linear layers, z = W a + b over any number of positions: G_i = Σ_t δ_t ⊗ a_t."""

import torch
import torch.nn.functional as F
from torch import Tensor

from f3eo.fisher.ghost.gradients.terms import Dense, Outer, Term
from f3eo.fisher.ghost.registry import register_layer, register_shifted
from f3eo.fisher.ghost.second_pass.shifted import SampleParameter


def positions(tensor: Tensor) -> Tensor:
    """(B, …, p) as (B, T, p)."""
    return tensor.flatten(1, -2)


@register_layer(F.linear)
def linear(
    delta: Tensor, input: Tensor, weight: Tensor, bias: Tensor | None = None
) -> dict[str, Term]:
    """Weight (q, p) and bias (q,)."""
    delta = positions(delta)
    terms: dict[str, Term] = {"weight": Outer(delta, positions(input))}
    if bias is not None:
        terms["bias"] = Dense(delta.sum(1))
    return terms


@register_shifted(F.linear)
def shifted_linear(
    input: Tensor, weight: SampleParameter | Tensor, bias: SampleParameter | Tensor | None = None
) -> Tensor:
    """W_i a + b_i."""
    x = positions(input)
    own = bias.tensor().unsqueeze(1) if isinstance(bias, SampleParameter) else bias
    if isinstance(weight, SampleParameter):
        z = weight.product(x, own)
    else:
        z = F.linear(x, weight) if own is None else F.linear(x, weight) + own
    return z.view(*input.shape[:-1], z.shape[-1])


@register_layer(
    torch.matmul, torch.Tensor.matmul, torch.Tensor.__matmul__, torch.mm, torch.Tensor.mm
)
def matmul(delta: Tensor, input: Tensor, other: Tensor) -> dict[str, Term] | None:
    """A weight (p, q) on the right of the samples; the fallback covers all else."""
    if other.ndim != 2 or input.ndim < 3:
        return None
    return {"other": Outer(positions(input), positions(delta))}


@register_shifted(
    torch.matmul, torch.Tensor.matmul, torch.Tensor.__matmul__, torch.mm, torch.Tensor.mm
)
def shifted_matmul(
    input: Tensor | SampleParameter, other: Tensor | SampleParameter
) -> Tensor | None:
    """a W_i."""
    if isinstance(input, SampleParameter) or not isinstance(other, SampleParameter):
        return None
    if input.ndim < 3 or len(other.shape) != 2:
        return None
    z = other.product_from_left(positions(input))
    return z.view(*input.shape[:-1], z.shape[-1])


@register_layer(torch.addmm)
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


@register_shifted(torch.addmm)
def shifted_addmm(
    input: Tensor | SampleParameter,
    mat1: Tensor,
    mat2: Tensor | SampleParameter,
    *,
    beta: float = 1,
    alpha: float = 1,
) -> Tensor | None:
    """β b_i + α a W_i."""
    if not isinstance(input, SampleParameter) or not isinstance(mat2, SampleParameter):
        return None
    if len(input.shape) != 1 or len(mat2.shape) != 2:
        return None
    return alpha * mat2.product_from_left(mat1) + beta * input.tensor().unsqueeze(1)
