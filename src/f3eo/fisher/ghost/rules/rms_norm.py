"""Root-mean-square normalisation, z = γ∘x̂: G_i = Σ_t δ_t∘x̂_t."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

from f3eo.fisher.ghost.registry import register
from f3eo.fisher.ghost.terms import Dense, Term


@register(F.rms_norm)
def rms_norm(
    delta: Tensor,
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    eps: float | None = None,
) -> dict[str, Term]:
    """Weight of shape `normalized_shape`."""
    positions = tuple(range(1, delta.ndim - len(normalized_shape)))
    normal = F.rms_norm(input, list(normalized_shape), eps=eps)
    return {"weight": Dense((delta * normal).sum(positions))}
