"""Weight normalisation as its formula; the second derivative of torch's own is wrong.

`torch.autograd.gradgradcheck` fails on `torch._weight_norm` (seen with torch 2.13 on a CPU).
"""

import torch
from torch import Tensor

from f3eo.decompositions.mode import decompose


@decompose(torch._weight_norm)  # pyright: ignore[reportPrivateImportUsage]
def weight_norm(v: Tensor, g: Tensor, dim: int = 0) -> Tensor:
    """g v/‖v‖, norms over all dimensions but `dim`; dim −1 is one norm of all (1607.07868)."""
    others = None if dim == -1 else [d for d in range(v.ndim) if d != dim]
    return v * (g / torch.linalg.vector_norm(v, dim=others, keepdim=dim != -1))
