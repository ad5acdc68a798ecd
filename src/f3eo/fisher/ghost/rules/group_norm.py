"""Group normalisation, z = γ∘x̂ + β per channel: G_i = Σ_t δ_t∘x̂_t for γ and Σ_t δ_t for β."""

import torch.nn.functional as F
from torch import Tensor

from f3eo.fisher.ghost.registry import register
from f3eo.fisher.ghost.terms import Dense, Term


@register(F.group_norm)
def group_norm(
    delta: Tensor,
    input: Tensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> dict[str, Term]:
    """Weight and bias (C,)."""
    positions = (1, *range(3, delta.ndim))  # delta is (B, k, C, …)
    terms: dict[str, Term] = {}
    if weight is not None:
        normal = F.group_norm(input.flatten(0, 1), num_groups, eps=eps).view(input.shape)
        terms["weight"] = Dense((delta * normal).sum(positions))
    if bias is not None:
        terms["bias"] = Dense(delta.sum(positions))
    return terms
