"""Embeddings: G_i is the sum of δ_t in row index_t."""

import torch.nn.functional as F
from torch import Tensor

from f3eo.fisher.ghost.gradients.terms import Rows, Term
from f3eo.fisher.ghost.registry import register_layer, register_shifted
from f3eo.fisher.ghost.second_pass.shifted import SampleParameter


@register_layer(F.embedding)
def embedding(
    delta: Tensor,
    input: Tensor,
    weight: Tensor,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> dict[str, Term]:
    """Weight (count, n); the row `padding_idx` gets no gradient."""
    index = input.flatten(1)
    values = delta.reshape(*index.shape, -1)
    if padding_idx is not None:
        padding = padding_idx % weight.shape[0]
        values = values * (index != padding).unsqueeze(-1)
    return {"weight": Rows(index, values, weight.shape[0])}


@register_shifted(F.embedding)
def shifted_embedding(
    input: Tensor,
    weight: SampleParameter,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Tensor:
    """Rows of W_i; the recorded pass has renormalised them to max_norm."""
    padding = None if padding_idx is None else padding_idx % weight.shape[0]
    rows = weight.lookup(input.flatten(1), padding)
    return rows.view(*input.shape, rows.shape[-1])
