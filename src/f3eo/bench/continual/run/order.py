"""The batches of a stage, in an order drawn once."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from f3eo.bench.tasks import Samples


@dataclass(frozen=True)
class Batches:
    """Batches (x, y) of some samples; every sweep gives the same.

    Args:
        samples: all of them.
        chosen: places of the samples of each batch, (B,).
    """

    samples: Samples
    chosen: Sequence[Tensor]

    def __len__(self) -> int:
        """The number of batches."""
        return len(self.chosen)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Batch by batch."""
        return ((self.samples.x[places], self.samples.y[places]) for places in self.chosen)

    def first(self, number: int) -> "Batches":
        """The first batches."""
        return Batches(self.samples, self.chosen[:number])


def ordered(samples: Samples, size: int, steps: int, generator: torch.Generator) -> Batches:
    """Batches for a number of steps, in a new order each epoch; incomplete ones are dropped.

    Fewer steps get the first batches of more.

    Args:
        samples: to draw from.
        size: B; as many as there are samples if fewer.
        steps: number of batches.
        generator: draws the order of each epoch.
    """
    count = len(samples.y)
    size = min(size, count)
    chosen: list[Tensor] = []
    while len(chosen) < steps:
        order = torch.randperm(count, generator=generator)
        chosen += order[: count // size * size].split(size)
    return Batches(samples, chosen[:steps])
