"""Where an operation's output keeps the samples, found by experiment.

Models move samples about: (B, T, d) becomes (B·T, d) or (T, B, d) inside. The gradient of one
sample's loss is zero in every other sample's part of an output, whatever the code did to get
there; two such gradients show where the samples are, and whether they mix.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from f3eo.fisher.ghost.arguments import name_of
from f3eo.fisher.ghost.use import Use


@dataclass(frozen=True)
class Layout:
    """Dimension `dim` counts B samples times k rows each, the samples outside or inside."""

    dim: int
    inside: bool = False

    def split(self, tensor: Tensor, samples: int) -> Tensor:
        """Each sample alone as a batch of k: (…, B·k, …) → (B, …, k, …), a view."""
        rows = tensor.shape[self.dim] // max(samples, 1)
        if rows == 1 and self.dim == 0:
            return tensor.unsqueeze(1)
        sizes = (rows, samples) if self.inside else (samples, rows)
        return tensor.unflatten(self.dim, sizes).movedim(self.dim + self.inside, 0)

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
            return Layout(0).split(tensor, samples)
        if samples == 1:
            return tensor.unsqueeze(0)  # all of it belongs to the one sample
        raise NotImplementedError(
            f"{name_of(operation)}: cannot tell where an argument of shape {tuple(tensor.shape)} "
            f"keeps the {samples} samples (output of shape {tuple(shape)}): register a rule for "
            f"its module, or use estimator=Sign()"
        )

    def join(self, tensor: Tensor) -> Tensor:
        """The inverse of `split`: (B, …, k, …) → (…, B·k, …)."""
        return tensor.movedim(0, self.dim + self.inside).flatten(self.dim, self.dim + 1)


def candidates(shape: torch.Size, samples: int) -> list[Layout]:
    """All layouts a shape allows, the likeliest first."""
    dims = [d for d, size in enumerate(shape) if samples and size % samples == 0 and size]
    exact = [Layout(d) for d in dims if shape[d] == samples]
    folded = [d for d in dims if shape[d] != samples]
    return exact + [Layout(d) for d in folded] + [Layout(d, inside=True) for d in folded]


def consistent(layout: Layout, gradient: Tensor, sample: int, samples: int) -> bool:
    """Whether the gradient of one sample's loss vanishes outside that sample's part."""
    parts = layout.split(gradient, samples)
    others = torch.arange(samples, device=parts.device) != sample
    return not bool(parts[others].any())


def find(
    uses: Sequence[Use], probes: Sequence[tuple[int, Sequence[Tensor | None]]], samples: int
) -> list[list[Layout]]:
    """The layout of every output of every use.

    Args:
        uses: recorded operations.
        probes: pairs (i, gradients of ℓ_i in all outputs of all uses, in order).
        samples: B.

    Raises:
        ValueError: an operation whose samples mix, by its name and shape.
    """
    layouts = []
    outputs = iter(range(sum(len(use.shapes) for use in uses)))
    for use in uses:
        found = []
        for shape in use.shapes:
            o = next(outputs)
            fitting = [
                layout
                for layout in candidates(shape, samples)
                if all(
                    (g := gradients[o]) is None or consistent(layout, g, i, samples)
                    for i, gradients in probes
                )
            ]
            if not fitting:
                raise ValueError(
                    f"{use.name} with output of shape {tuple(shape)} mixes the {samples} samples "
                    f"of the batch, so per-sample gradients are not defined there: keep every "
                    f"sample's output a function of that sample alone (no batch statistics), hand "
                    f"the batch to the closure as arguments, or use estimator=Batch(); where a "
                    f"table of constants is {samples} long, too, take another batch size"
                )
            found.append(fitting[0])
        layouts.append(found)
    return layouts
