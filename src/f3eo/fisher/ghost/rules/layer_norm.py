"""Layer normalisation, z = γ∘x̂ + β: G_i = Σ_t δ_t∘x̂_t for γ and Σ_t δ_t for β."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

from f3eo.fisher.ghost.registry import register
from f3eo.fisher.ghost.terms import Dense, Term


@register(F.layer_norm)
def layer_norm(
    delta: Tensor,
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> dict[str, Term]:
    """Weight and bias of shape `normalized_shape`."""
    last = delta.ndim - len(normalized_shape)
    positions = tuple(range(1, last))
    terms: dict[str, Term] = {}
    if weight is not None:
        normal = F.layer_norm(input, tuple(normalized_shape), eps=eps)
        terms["weight"] = Dense((delta * normal).sum(positions))
    if bias is not None:
        terms["bias"] = Dense(delta.sum(positions))
    return terms
