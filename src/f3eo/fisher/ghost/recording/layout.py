"""Where an operation's output keeps the samples.

Models move samples about: (B, T, d) becomes (B·T, d) or (T, B, d) inside, and a packed sequence has
them sorted by length. What a shape allows is listed here; which of it is right, gradients of single
samples tell (`evidence.py`).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from f3eo.arguments import name_of


@dataclass(frozen=True)
class Layout:
    """Dimension `dim` counts B samples times k rows each, the samples outside or inside.

    Args:
        dim: the dimension.
        inside: whether the rows of a sample lie B apart, and not side by side.
        follows: whether the samples are in the order that indexing has brought them into.
        order: which sample stands where in this batch, (B,); None is the batch's own order.
    """

    dim: int
    inside: bool = False
    follows: bool = True
    order: Tensor | None = field(default=None, compare=False)

    def at(self, order: Tensor | None) -> "Layout":
        """The same layout in a batch whose samples are in this order there."""
        order = order if self.follows else None
        return self if order is self.order else replace(self, order=order)

    def owners(self, tensor: Tensor, samples: int) -> Tensor:
        """Which sample an element belongs to; int64, broadcasts against the tensor."""
        size = tensor.shape[self.dim]
        rows = torch.arange(size, device=tensor.device)
        owners = rows % samples if self.inside else rows // (size // samples)
        if self.order is not None:
            owners = self.order.to(owners.device)[owners]
        return owners.view(-1, *(1,) * (tensor.ndim - 1 - self.dim))

    def split(self, tensor: Tensor, samples: int) -> Tensor:
        """Each sample alone as a batch of k: (…, B·k, …) → (B, …, k, …)."""
        rows = tensor.shape[self.dim] // max(samples, 1)
        if rows == 1 and self.dim == 0:
            parts = tensor.unsqueeze(1)
        else:
            sizes = (rows, samples) if self.inside else (samples, rows)
            parts = tensor.unflatten(self.dim, sizes).movedim(self.dim + self.inside, 0)
        return parts if self.order is None else parts[self.order.to(parts.device).argsort()]

    def sizes(self, shape: Sequence[int], samples: int) -> tuple[int, ...]:
        """The shape of one sample's part of a tensor of this shape."""
        rows = shape[self.dim] // max(samples, 1)
        return (*shape[: self.dim], rows, *shape[self.dim + 1 :])

    def split_argument(
        self, tensor: Tensor, shape: Sequence[int], samples: int, operation: Any
    ) -> Tensor:
        """An argument of an operation as (B, …), its sample dimension that of the output.

        Args:
            tensor: the argument.
            shape: of the output, whose layout this is.
            samples: B.
            operation: whose argument it is, for the message.

        Raises:
            NotImplementedError: no dimension of the argument fits.
        """
        rows, dim = shape[self.dim], self.dim
        if tensor.ndim > dim and tensor.shape[dim] == rows:
            return self.split(tensor, samples)
        missing = len(shape) - tensor.ndim
        if 0 <= missing <= dim and tensor.shape[dim - missing] == rows:
            return self.split(tensor.reshape((1,) * missing + tensor.shape), samples)
        if tensor.shape[:1] == (samples,):
            return replace(self, dim=0, inside=False).split(tensor, samples)
        if samples == 1:
            return tensor.unsqueeze(0)  # all of it belongs to the one sample
        raise NotImplementedError(
            f"{name_of(operation)}: cannot tell where an argument of shape {tuple(tensor.shape)} "
            f"keeps the {samples} samples (output of shape {tuple(shape)}): register a rule for "
            f"its module, or use estimator=Sign()"
        )

    def join(self, tensor: Tensor) -> Tensor:
        """The inverse of `split`: (B, …, k, …) → (…, B·k, …)."""
        parts = tensor if self.order is None else tensor[self.order.to(tensor.device)]
        return parts.movedim(0, self.dim + self.inside).flatten(self.dim, self.dim + 1)


def candidates(shape: Sequence[int], samples: int, order: Tensor | None) -> list[Layout]:
    """All layouts a shape allows, the likeliest first.

    Args:
        shape: of an output.
        samples: B.
        order: that indexing has brought the samples into, or None.
    """
    if samples == 1:
        return [Layout(0)]
    dims = [d for d, size in enumerate(shape) if samples and size % samples == 0 and size]
    exact = [Layout(d) for d in dims if shape[d] == samples]
    folded = [d for d in dims if shape[d] != samples]
    found = exact + [Layout(d) for d in folded] + [Layout(d, inside=True) for d in folded]
    if order is None:
        return found
    return [c.at(order) for c in found] + [replace(c, follows=False) for c in found]
