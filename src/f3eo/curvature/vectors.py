"""Lists of parameter-shaped tensors as one flat vector, and back."""

from collections.abc import Sequence

import torch
from torch import Tensor


def flatten(tensors: Sequence[Tensor]) -> Tensor:
    """All entries in one vector of shape (P,), detached, in float32 or wider.

    >>> flatten([torch.ones(1, 2), torch.zeros(())])
    tensor([1., 1., 0.])
    """
    vector = torch.cat([t.detach().reshape(-1) for t in tensors])
    return vector.float() if vector.dtype in (torch.float16, torch.bfloat16) else vector


def unflatten(vector: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    """Invert `flatten`: the entries in the shapes and dtypes of `like`.

    >>> unflatten(torch.tensor([1.0, 2.0, 3.0]), [torch.zeros(1, 2), torch.zeros(())])
    [tensor([[1., 2.]]), tensor(3.)]
    """
    parts = vector.split([t.numel() for t in like])
    return [part.view(t.shape).to(t.dtype) for part, t in zip(parts, like, strict=True)]
