"""Layouts: where an operation's output keeps the samples.

Models reshape and permute samples: (B, T, d) becomes (B·T, d) or (T, B, d), and a packed sequence
has them sorted by length. `candidates` lists the layouts that a shape allows; gradients of single
samples tell which is right (`evidence.py`).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from f3eo.decompositions.mode import name_of
from f3eo.fisher.ghost.recording.use import Use


@dataclass(frozen=True)
class Layout:
    """Dimension `dim` counts B samples times k rows each, the samples outside or inside.

    Args:
        dim: the dimension.
        inside: whether the rows of a sample lie B apart; otherwise they are contiguous.
        follows: whether the samples follow the order that indexing gave them.
        order: (B,), which sample stands at each place in this batch; None is the batch's own order.
    """

    dim: int
    inside: bool = False
    follows: bool = True
    order: Tensor | None = field(default=None, compare=False)

    def at(self, order: Tensor | None) -> "Layout":
        """The same layout in a batch whose samples are in this order."""
        order = order if self.follows else None
        return self if order is self.order else replace(self, order=order)

    def owners(self, tensor: Tensor, samples: int) -> Tensor:
        """The sample that each element belongs to; int64, broadcasts against the tensor."""
        size = tensor.shape[self.dim]
        rows = torch.arange(size, device=tensor.device)
        owners = rows % samples if self.inside else rows // (size // samples)
        if self.order is not None:
            owners = self.order.to(owners.device)[owners]
        return owners.view(-1, *(1,) * (tensor.ndim - 1 - self.dim))

    def split(self, tensor: Tensor, samples: int) -> Tensor:
        """Make each sample a batch of k of its own: (…, B·k, …) → (B, …, k, …)."""
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

    def split_arguments(
        self,
        tensors: Sequence[Tensor],
        sampled: Sequence[bool],
        shape: Sequence[int],
        samples: int,
        operation: Any,
    ) -> list[Tensor]:
        """Split the arguments that carry samples; their sample dimension is that of the output.

        Args:
            tensors: the tensors among the arguments.
            sampled: whether each carries samples; others stay as they are.
            shape: of the output, whose layout this is.
            samples: B.
            operation: the operation, for the message.

        Raises:
            NotImplementedError: no dimension of an argument fits.
        """
        rows, dim, parts = shape[self.dim], self.dim, list(tensors)
        for k, tensor in enumerate(tensors):
            missing = len(shape) - tensor.ndim
            if not sampled[k]:
                continue
            if tensor.ndim > dim and tensor.shape[dim] == rows:
                parts[k] = self.split(tensor, samples)
            elif 0 <= missing <= dim and tensor.shape[dim - missing] == rows:
                parts[k] = self.split(tensor.reshape((1,) * missing + tensor.shape), samples)
            elif tensor.shape[:1] == (samples,):
                parts[k] = replace(self, dim=0, inside=False).split(tensor, samples)
            elif samples == 1:
                parts[k] = tensor.unsqueeze(0)  # all of it belongs to the one sample
            else:
                raise NotImplementedError(
                    f"{name_of(operation)}: cannot tell where an argument of shape "
                    f"{tuple(tensor.shape)} keeps the {samples} samples (output of shape "
                    f"{tuple(shape)}): register a rule for its module, or use estimator=Sign()"
                )
        return parts

    def join(self, tensor: Tensor, stride: Sequence[int]) -> Tensor:
        """Undo `split`: (B, …, k, …) → (…, B·k, …), with the memory layout of the first pass.

        Dropout draws its mask in the order of memory.
        """
        parts = tensor if self.order is None else tensor[self.order.to(tensor.device)]
        joined = parts.movedim(0, self.dim + self.inside).flatten(self.dim, self.dim + 1)
        for size, own, first in zip(joined.shape, joined.stride(), stride, strict=True):
            if size != 1 and own != first:
                return joined.new_empty_strided(joined.shape, stride).copy_(joined)
        return joined


def candidates(shape: Sequence[int], samples: int, order: Tensor | None) -> list[Layout]:
    """All layouts that a shape allows, the likeliest first.

    Args:
        shape: of an output.
        samples: B.
        order: that indexing gave the samples, (B,), or None.
    """
    if samples == 1:
        return [Layout(0)]
    dims = [d for d, size in enumerate(shape) if samples and size % samples == 0 and size]
    exact = [Layout(d) for d in dims if shape[d] == samples]
    folded = [d for d in dims if shape[d] != samples]
    layouts = exact + [Layout(d) for d in folded] + [Layout(d, inside=True) for d in folded]
    if order is None:
        return layouts
    return [c.at(order) for c in layouts] + [replace(c, follows=False) for c in layouts]


class SplitUse(NamedTuple):
    """One use, sample by sample.

    Args:
        use: the use.
        deltas: gradients of Σℓ in its outputs, (B, …, k, …) each.
        delta: the same as a layer rule takes it: one tensor, or a tuple of several.
        tensors: the tensors among its arguments, in order; (B, …) where they carry samples.
    """

    use: Use
    deltas: list[Tensor]
    delta: Tensor | tuple[Tensor, ...]
    tensors: list[Tensor]


def split_uses(
    uses: Sequence[Use],
    layouts: Sequence[Sequence[Layout]],
    deltas: Sequence[Tensor | None],
    losses: Tensor,
    *,
    attached: bool,
) -> list[SplitUse]:
    """Split arguments and output gradients of the uses that the losses depend on.

    Args:
        uses: the uses.
        layouts: of the outputs of each.
        deltas: gradients of Σℓ in all outputs of all uses, in order; None counts as zero.
        losses: (B,); gives B, dtype and device.
        attached: whether arguments keep their graph.

    Raises:
        NotImplementedError: an argument that carries samples in none of its dimensions.
    """
    samples, following, splits = len(losses), iter(deltas), []
    for use, own in zip(uses, layouts, strict=True):
        gradients = [next(following) for _ in use.edges]
        if all(d is None for d in gradients):
            continue
        parts = []
        for delta, shape, layout in zip(gradients, use.shapes, own, strict=True):
            delta = losses.new_zeros(shape) if delta is None else delta
            parts.append(layout.split(delta, samples))
        tensors = use.call.tensors
        if not attached:
            tensors = [t.detach() if s else t for t, s in zip(tensors, use.sampled, strict=True)]
        arguments = own[0].split_arguments(
            tensors, use.sampled, use.shapes[0], samples, use.call.func
        )
        delta = parts[0] if len(parts) == 1 else tuple(parts)
        splits.append(SplitUse(use, parts, delta, arguments))
    return splits
