"""Bags of embeddings: a look-up, then a sum, mean or maximum over each bag."""

import torch
import torch.nn.functional as F
from torch import Tensor

from f3eo.decompositions.mode import decompose


@decompose(F.embedding_bag)
def embedding_bag(
    input: Tensor,
    weight: Tensor,
    offsets: Tensor | None = None,
    max_norm: float | None = None,
    norm_type: float = 2,
    scale_grad_by_freq: bool = False,
    mode: str = "mean",
    sparse: bool = False,
    per_sample_weights: Tensor | None = None,
    include_last_offset: bool = False,
    padding_idx: int | None = None,
) -> Tensor:
    """As `torch.nn.functional.embedding_bag`, for bags of equal or of unequal length."""
    if input.ndim == 1:
        if offsets is None:
            raise ValueError("embedding_bag with a 1-D input needs offsets")
        input, per_sample_weights, kept = _padded(
            input, offsets, per_sample_weights, include_last_offset
        )
    else:
        kept = torch.ones_like(input, dtype=torch.bool)
    if padding_idx is not None:
        kept = kept & (input != padding_idx % weight.shape[0])
    rows = F.embedding(input, weight, padding_idx, max_norm, norm_type, scale_grad_by_freq, sparse)
    mask = kept.unsqueeze(-1)
    if mode == "max":
        highest = rows.masked_fill(~mask, -torch.inf).amax(1)
        return highest.masked_fill(~kept.any(1, keepdim=True), 0.0)
    if per_sample_weights is not None:
        rows = rows * per_sample_weights.unsqueeze(-1)
    total = (rows * mask).sum(1)
    if mode == "sum":
        return total
    return total / kept.sum(1, keepdim=True).clamp(min=1)


def _padded(
    input: Tensor, offsets: Tensor, weights: Tensor | None, include_last_offset: bool
) -> tuple[Tensor, Tensor | None, Tensor]:
    """Bags of unequal length padded to a rectangle, and the mask of entries that are no padding."""
    end = offsets.new_tensor([len(input)])
    bounds = offsets if include_last_offset else torch.cat([offsets, end])
    lengths = bounds.diff()
    places = torch.arange(int(lengths.max()) if len(lengths) else 0, device=input.device)
    kept = places < lengths.unsqueeze(1)
    index = (bounds[:-1].unsqueeze(1) + places).clamp(max=max(len(input) - 1, 0))
    return input[index], None if weights is None else weights[index], kept
