"""z = W a + b over any number of positions: G_i = Σ_t δ_t ⊗ a_t."""

import torch
import torch.nn.functional as F
from torch import Tensor

from f3eo.fisher.ghost.gradients.terms import Dense, Outer, Term
from f3eo.fisher.ghost.registry import perturbed, register_layer
from f3eo.fisher.ghost.second_pass.shifted import Weights


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


@perturbed(F.linear)
def perturbed_linear(
    input: Tensor, weight: Weights | Tensor, bias: Weights | Tensor | None = None
) -> Tensor:
    """W_i a + b_i."""
    x = positions(input)
    own = bias.tensor().unsqueeze(1) if isinstance(bias, Weights) else bias
    if isinstance(weight, Weights):
        z = weight.product(x, own)
    else:
        z = F.linear(x, weight) if own is None else F.linear(x, weight) + own
    return z.view(*input.shape[:-1], z.shape[-1])


@register_layer(
    torch.matmul, torch.Tensor.matmul, torch.Tensor.__matmul__, torch.mm, torch.Tensor.mm
)
def matmul(delta: Tensor, input: Tensor, other: Tensor) -> dict[str, Term] | None:
    """A weight (p, q) on the right of the samples; anything else is left to the fallback."""
    if other.ndim != 2 or input.ndim < 3:
        return None
    return {"other": Outer(positions(input), positions(delta))}


@perturbed(torch.matmul, torch.Tensor.matmul, torch.Tensor.__matmul__, torch.mm, torch.Tensor.mm)
def perturbed_matmul(input: Tensor | Weights, other: Tensor | Weights) -> Tensor | None:
    """a W_i."""
    if isinstance(input, Weights) or not isinstance(other, Weights):
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


@perturbed(torch.addmm)
def perturbed_addmm(
    input: Tensor | Weights,
    mat1: Tensor,
    mat2: Tensor | Weights,
    *,
    beta: float = 1,
    alpha: float = 1,
) -> Tensor | None:
    """β b_i + α a W_i."""
    if not isinstance(input, Weights) or not isinstance(mat2, Weights):
        return None
    if len(input.shape) != 1 or len(mat2.shape) != 2:
        return None
    return alpha * mat2.product_from_left(mat1) + beta * input.tensor().unsqueeze(1)
