"""Parameter-shaped tensors in a row and back: the vectors that conjugate gradients work on."""

from collections.abc import Sequence

import torch
from torch import Tensor


def joined(tensors: Sequence[Tensor]) -> Tensor:
    """All entries in a row, detached, in float32 or wider; shape (P,)."""
    row = torch.cat([t.detach().reshape(-1) for t in tensors])
    return row.float() if row.dtype in (torch.float16, torch.bfloat16) else row


def split(row: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    """The inverse of `joined`: shapes and dtypes of `like`."""
    parts = row.split([t.numel() for t in like])
    return [part.view(t.shape).to(t.dtype) for part, t in zip(parts, like, strict=True)]
