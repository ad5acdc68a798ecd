"""Weight normalisation as its parts: the fused operation's second derivative is wrong.

Torch's backward pass takes the norms as constants, so what it gives when differentiated again is
no symmetric Hessian: `gradgradcheck` fails on torch 2.13.
"""

import torch
from torch import Tensor

from f3eo.decompositions.mode import decompose


@decompose(torch._weight_norm)  # pyright: ignore[reportPrivateImportUsage]
def weight_norm(v: Tensor, g: Tensor, dim: int = 0) -> Tensor:
    """g v/‖v‖, the norms over all dimensions but `dim` (-1: over all)."""
    return v * (g / torch.norm_except_dim(v, 2, dim))
