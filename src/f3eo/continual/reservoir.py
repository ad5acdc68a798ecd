"""A uniform sample of all that went by."""

from collections.abc import Mapping
from typing import Any

import torch

from f3eo.continual.memory import Memory
from f3eo.optimizer.checks import in_range


class Reservoir(Memory):
    """Keeps every sample of the stream with the same probability, size/t after t samples.

    The t-th sample takes position t − 1 while t <= size; afterwards position j, uniform in
    {0, …, t − 1}, where j < size, and else it is left out.

    Args:
        size: number of samples.
        generator, device: see `Memory`.

    Raises:
        TypeError, ValueError: a size that is no positive integer.

    Source: Vitter 1985, "Random sampling with a reservoir", algorithm R.
    """

    def __init__(
        self,
        size: int,
        generator: torch.Generator | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__(generator, device)
        self.size = in_range("size", size, 0, None, integer=True)
        self._seen = 0

    def places(self, batch: tuple[Any, ...], count: int) -> Mapping[int, int]:
        """See `Memory.places`."""
        found: dict[int, int] = {}
        for sample, uniform in enumerate(self._uniform(count)):
            position = self._seen if self._seen < self.size else int(uniform * (self._seen + 1))
            self._seen += 1
            if position < self.size:
                found[position] = sample  # a later sample of the same batch replaces this one
        return found

    def counters(self) -> dict[str, Any]:
        """See `Memory.counters`."""
        return {"seen": self._seen}

    def load_counters(self, counters: Mapping[str, Any]) -> None:
        """See `Memory.load_counters`."""
        self._seen = counters["seen"]
